"""Whatever happens to spans, in whatever order: a reader sees what is so."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from agenttrace import semconv
from agenttrace.clock import COARSE
from agenttrace.journal import Journal, State
from agenttrace.model import RETURNED, EndedBy, Ending, Outcome
from agenttrace.registry import MemorySlots, OpenSpan
from tests.journal.given import STEP, Live, Step, slots_of, span

NAMES = ["step", "Zürich", "x" * 300]
MODELS = {model: Step({semconv.GEN_AI_REQUEST_MODEL: model}) for model in ("a", "b")}
OTHER = Live()
ERRORS = (KeyError(), TimeoutError(), None)


class Seen(NamedTuple):
    """What a reader is to see of a span."""

    state: State
    name: str
    model: str | None
    last_beat: int
    end_time: int
    outcome: Outcome | None
    ended_by: EndedBy | None
    error_type: str | None


class Life(RuleBasedStateMachine):
    """Two journals, one after the other, and the slots in memory before them."""

    running = Bundle("running")
    ended = Bundle("ended")
    gone = Bundle("gone")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.journals: list[Journal] = []
        self.expected: dict[Path, dict[bytes, Seen]] = {}
        self.where: dict[bytes, Path] = {}
        self.room: dict[Path, int] = {}
        self.memory = MemorySlots()
        self.configure()

    def configure(self) -> None:
        previous = self.journals[-1] if self.journals else self.memory
        journal = Journal(
            self.directory, first_slots=8, on_low=lambda: None, previous=previous
        )
        self.journals.append(journal)
        self.expected[journal.path] = {}

    @property
    def slots(self) -> Journal:
        """Those that are used now."""
        return self.journals[-1]

    def see(self, record: OpenSpan, **changed: Any) -> None:  # noqa: ANN401 - fields of `Seen`
        path = self.where.get(record.span_id)
        if path is not None:
            seen = self.expected[path][record.span_id]
            self.expected[path][record.span_id] = seen._replace(**changed)

    @rule(
        target=running,
        name=st.sampled_from(NAMES),
        model=st.none() | st.sampled_from([*MODELS, "other"]),
    )
    def take(self, name: str, model: str | None) -> OpenSpan:
        live = STEP if model is None else MODELS.get(model, OTHER)
        record = span(name, live, operation=model and "chat")
        journal = self.slots
        self.slots.take(record)
        if len(self.expected[journal.path]) < journal.slots:
            self.where[record.span_id] = journal.path
            self.expected[journal.path][record.span_id] = Seen(
                State.OPEN,
                name[:128],
                model if model in MODELS else None,
                record.started_at,
                0,
                None,
                None,
                None,
            )
        return record

    @rule(target=gone)
    def take_in_memory(self) -> OpenSpan:
        """One of before the first journal."""
        record = span()
        self.memory.take(record)
        self.slots.ended(record, 1, RETURNED)
        self.slots.free(record)
        return record

    @rule(record=st.one_of(running, ended, gone))
    def beat(self, record: OpenSpan) -> None:
        COARSE.now += 1
        record.beat()
        self.see(record, last_beat=COARSE.now)

    @rule(target=ended, record=consumes(running), end_time=st.integers(0, 2**64 - 1))
    def end(self, record: OpenSpan, end_time: int) -> OpenSpan:
        self.slots.ended(record, end_time, RETURNED)
        self.see(
            record,
            state=State.ENDED,
            end_time=end_time,
            outcome=Outcome.OK,
            ended_by=EndedBy.RETURN,
        )
        return record

    @rule(
        target=ended,
        record=consumes(running),
        outcome=st.sampled_from(Outcome),
        ended_by=st.sampled_from(EndedBy),
        error=st.sampled_from(ERRORS),
    )
    def fail(
        self,
        record: OpenSpan,
        outcome: Outcome,
        ended_by: EndedBy,
        error: BaseException | None,
    ) -> OpenSpan:
        self.slots.ended(record, 7, Ending(outcome, ended_by, error))
        error_types = {
            Outcome.ERROR: "_OTHER" if error is None else type(error).__name__,
            Outcome.TIMED_OUT: "timeout",
            Outcome.STUCK: "stuck",
            Outcome.LOST: "process_lost",
        }
        self.see(
            record,
            state=State.ENDED,
            end_time=7,
            outcome=outcome,
            ended_by=ended_by,
            error_type=error_types.get(outcome),
        )
        return record

    @rule(target=ended, record=consumes(running))
    def judge(self, record: OpenSpan) -> OpenSpan:
        self.slots.judged(record)
        self.see(record, state=State.JUDGED)
        return record

    @rule(target=gone, record=consumes(ended) | consumes(running))
    def free(self, record: OpenSpan) -> OpenSpan:
        self.slots.free(record)
        path = self.where.pop(record.span_id, None)
        if path is not None:
            del self.expected[path][record.span_id]
        return record

    @rule(record=gone)
    def come_too_late(self, record: OpenSpan) -> None:
        self.slots.ended(record, 9, RETURNED)
        self.slots.judged(record)
        self.slots.free(record)

    @rule()
    def grow(self) -> None:
        if self.slots.slots < 64:
            assert self.slots.grow()

    @precondition(lambda self: len(self.journals) < 3)
    @rule()
    def configure_again(self) -> None:
        self.configure()

    @invariant()
    def the_reader_sees_what_is_so(self) -> None:
        for path, expected in self.expected.items():
            found = {
                slot.span_id: Seen(
                    slot.state,
                    slot.name,
                    slot.attributes.get(semconv.GEN_AI_REQUEST_MODEL),
                    slot.last_beat,
                    slot.end_time,
                    slot.outcome,
                    slot.ended_by,
                    slot.error_type,
                )
                for slot in slots_of(path)
            }
            assert found == expected

    def teardown(self) -> None:
        for journal in self.journals:
            journal.close(remove=True)
        assert list(self.directory.iterdir()) == []
        shutil.rmtree(self.directory)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
