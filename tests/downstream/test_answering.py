"""What answers openai's own tests answers as the library's types say."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import openai
import pytest
from openai.types.chat import ChatCompletion

from tests.downstream.answering import operations, serving, smallest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    """Yield a client that refuses whatever is not of its types."""
    with serving() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with openai.OpenAI(
            base_url=f"http://127.0.0.1:{server.server_port}",
            api_key="k",
            max_retries=0,
            _strict_response_validation=True,
        ) as client:
            yield client
        server.shutdown()
        thread.join()


def test_an_answer_is_of_the_type_that_is_asked_for(client: openai.OpenAI) -> None:
    """One that is not would fail tests that have nothing to do with agenttrace."""
    completion = client.chat.completions.create(model="m", messages=[])
    page = client.files.list()
    heard = client.audio.transcriptions.create(model="m", file=b"sound")
    stream = client.chat.completions.create(model="m", messages=[], stream=True)

    assert isinstance(completion, ChatCompletion)
    assert completion.object == "chat.completion"
    assert page.data == []
    assert heard.text == ""
    assert list(stream) == []
    assert client.files.content("f-1").read() == b"binary"


def test_what_nobody_knows_is_not_found(client: openai.OpenAI) -> None:
    """A path that is read wrongly has to be noticed."""
    with pytest.raises(openai.NotFoundError):
        client.get("/nothing/of/this", cast_to=object)


def test_of_two_paths_the_one_with_fewer_variables_is_asked() -> None:
    """`/files/{id}` would take what is asked of `/files/search`."""
    counts = [it.variables for it in operations()]

    assert counts == sorted(counts)
    assert counts[0] == 0
    assert len(counts) > 50


def test_a_value_is_found_for_whatever_a_schema_says() -> None:
    """Types of the library come as each of these."""
    schema = {
        "properties": {
            "kind": {"const": "a"},
            "one": {"anyOf": [{"$ref": "#/$defs/One"}, {"type": "null"}]},
            "at": {"type": "string", "format": "date-time"},
            "pair": {"prefixItems": [{"type": "integer"}, {"enum": ["x", "y"]}]},
            "any": {},
            "more": {"type": "string"},
        },
        "required": ["kind", "one", "at", "pair", "any"],
    }

    value = smallest(schema, {"One": {"type": "array"}})

    assert value == {
        "kind": "a",
        "one": [],
        "at": "2020-01-01T00:00:00Z",
        "pair": [0, "x"],
        "any": {},
    }
