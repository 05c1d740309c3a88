"""Reads embeddings.  They are never streamed, and their content is never captured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from agenttrace import semconv
from agenttrace.instrumentation.openai import requests
from agenttrace.instrumentation.openai.recording import PROGRESS, ModelRecorder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenttrace.boundary.recorder import Progress
    from agenttrace.model import Attributes


class EmbeddingsRecorder(ModelRecorder):
    """Reads one request for embeddings."""

    operation: ClassVar = semconv.EMBEDDINGS
    readers: ClassVar[Mapping[str, tuple[str, requests.Read]]] = {
        "dimensions": (semconv.GEN_AI_EMBEDDINGS_DIMENSION_COUNT, requests.count),
        "encoding_format": (semconv.GEN_AI_REQUEST_ENCODING_FORMATS, requests.texts),
    }

    __slots__ = ()

    def messages(self) -> Attributes:
        """Return nothing: the conventions have no attribute for it."""
        return {}

    def answer(self, answer: Any) -> dict[str, object]:  # noqa: ANN401 - a response, or plain JSON
        """Return model and usage."""
        attributes: dict[str, object] = {}
        if answer.model:
            attributes[semconv.GEN_AI_RESPONSE_MODEL] = answer.model
        if answer.usage is not None:
            attributes[semconv.GEN_AI_USAGE_INPUT_TOKENS] = answer.usage.prompt_tokens
        return attributes

    def item(self, _: object, /) -> Progress:
        """Take any item for progress: the API sends none."""
        return PROGRESS

    def gathered(self) -> dict[str, object]:
        """Return nothing: there are no items."""
        return {}
