"""The verbs for a run that goes on later: in another task, process, or after a crash.

A run that has broken off is told as it ended, `lost` for one, and keeps that form.
What goes on is therefore a run of its own, in a trace of its own, linked to the one
before and in the same conversation.  What a token holds is `context.tokens`' business.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace import Link

from agenttrace import safety, semconv
from agenttrace.api.verbs import current_record, run_of_its_own, span
from agenttrace.attributes import clean
from agenttrace.context.bound import bind, bound_in
from agenttrace.context.tokens import Origin, read, write
from agenttrace.model import NO_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Generator

    from agenttrace.model import Attributes


def checkpoint() -> str:
    """Return a token by which a run can go on from here, wherever and whenever.

    Store it with the state of the work; whoever goes on hands it to `resume`.  It is
    plain ASCII of at most 1,024 characters, and names the current span and the
    conversation, nothing else: what else is bound, prompts and results are not in it.
    It is no secret and no proof: who may write tokens can link runs, and no more.

    Empty where nothing is traced; `resume` takes that as well.
    """
    return safety.guarded("checkpoint", _token_of_here) or ""


@contextmanager
def resume(token: str | None, *, name: str = "resume") -> Generator[trace.Span]:
    """Go on with the run in which *token* was made, as a run of its own.

    The block is a span with a trace of its own, in the same conversation, linked to the
    span that was current at the `checkpoint()`, and to the one that is current here, if
    there is one.  Whether it is sampled is decided anew.

    Args:
        token: What `checkpoint()` returned.  Where there is none yet, None or empty
            text, the run begins without a link.  So it does with text that is no token,
            which is counted (`tokens_unreadable`) and logged once, never raised.
        name: Name of the span.

    >>> with span("import") as before:
    ...     token = checkpoint()
    >>> with resume(token, name="import, second part"):
    ...     pass
    """
    origin = read(token)
    links: tuple[Link, ...] = ()
    if origin is not None:
        links = (Link(origin.span, {semconv.LINK: semconv.RESUMED}),)
    elif token is not None and (type(token) is not str or token):
        _refuse()
    conversation_id = origin.conversation_id if origin else None
    with (
        nullcontext()
        if conversation_id is None
        else bind(conversation_id=conversation_id),
        run_of_its_own() as starter,
        span(name, links=(*links, *starter)) as run,
    ):
        yield run


def _token_of_here() -> str:
    here = trace.get_current_span().get_span_context()
    return write(Origin(here, _conversation())) if here.is_valid else ""


def _conversation() -> str | None:
    """Return the conversation of what is current: as bound, or as its spans say."""
    key = semconv.GEN_AI_CONVERSATION_ID
    said: object = bound_in(otel.get_current()).get(key)
    live: object = trace.get_current_span()
    above = current_record()
    while said is None and live is not None:
        attributes: Attributes | None = getattr(live, "attributes", None)
        said = (attributes or NO_ATTRIBUTES).get(key)
        above = above and above.parent
        live = above and above()
    # A number is told as text; and what a token cannot hold must not cost the link.
    return None if said is None else str(clean(said))


def _refuse() -> None:
    """Say, without the text, which may be anything, that a token is none."""
    safety.count(safety.Count.TOKENS_UNREADABLE)
    safety.log_once(
        "resume",
        logging.WARNING,
        "resume() was given what is no token of checkpoint(), or one of a later "
        "version; the run begins without a link (logged once, counted in "
        "tokens_unreadable)",
    )
