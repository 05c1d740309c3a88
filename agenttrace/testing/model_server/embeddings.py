"""The wire form of Embeddings.  Pure.

A vector is a function of its text alone: the same text has the same vector in every
process, and different texts have different ones.  It says nothing of meaning.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from base64 import b64encode
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from agenttrace.testing.model_server.encoding import JsonObject
    from agenttrace.testing.model_server.requests import Request

DEFAULT_DIMENSIONS: Final = 1536
"""What the small model of the real API gives."""


def embeddings(request: Request, usage: tuple[int, int] | None) -> JsonObject:
    """Return one vector for each input: texts, or tokens."""
    wanted = request.body.get("dimensions")
    dimensions = wanted if isinstance(wanted, int) and wanted > 0 else None
    as_base64 = request.body.get("encoding_format") == "base64"
    inputs = _inputs(request.body["input"])
    data: list[JsonObject] = []
    for index, given in enumerate(inputs):
        numbers = vector(given, dimensions or DEFAULT_DIMENSIONS)
        # The official client asks for base64 and decodes it as little-endian floats.
        encoded = b64encode(array("f", numbers).tobytes()).decode()
        value = encoded if as_base64 else numbers
        data.append({"object": "embedding", "index": index, "embedding": value})
    tokens = usage[0] if usage else max(1, sum(len(each.split()) for each in inputs))
    return {
        "object": "list",
        "data": data,
        "model": request.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def vector(given: str, dimensions: int) -> list[float]:
    """Return the vector of *given*, of length one."""
    digest = hashlib.shake_256(given.encode("utf-8", "surrogatepass"))
    raw = array("h", digest.digest(2 * dimensions))
    # Centred on a half, so that no vector is zero.
    numbers = [number + 0.5 for number in raw]
    length = math.hypot(*numbers)
    return [number / length for number in numbers]


def _inputs(given: object) -> list[str]:
    if not isinstance(given, list):
        return [str(given)]
    items = cast("list[object]", given)
    if items and all(isinstance(item, int) for item in items):
        return [str(items)]
    return [str(item) for item in items]
