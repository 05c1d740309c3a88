"""A span is in the journal from its start until it is where it cannot be lost."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.trace import SpanKind

from agenttrace import safety, semconv
from agenttrace.clock import COARSE
from agenttrace.journal import Journal, State, read_journal, take_over
from agenttrace.journal.slot import as_kept
from agenttrace.model import RETURNED, EndedBy, Ending, Outcome
from agenttrace.registry import MemorySlots, OpenSpan, OpenSpans
from tests.journal.given import STARTED_AT, Calls, Live, Step, slot_of, slots_of, span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE = 60
NOW = STARTED_AT + 1_000_000
FAILED = Ending(Outcome.ERROR, EndedBy.EXCEPTION, error=KeyError("secret"))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Yield a journal of 64 slots, which grows when it is told to."""
    made = Journal(
        tmp_path / "state", resource=b"support", first_slots=64, on_low=lambda: None
    )
    yield made
    made.close(remove=True)


class Unwritten:
    """How many spans were not journaled, since a test began."""

    def __init__(self) -> None:
        self._before = safety.counts()["spans_not_journaled"]

    @property
    def count(self) -> int:
        """As of now."""
        return safety.counts()["spans_not_journaled"] - self._before


@pytest.fixture
def unwritten() -> Unwritten:
    """Return a count that begins with the test."""
    return Unwritten()


def run(body: str, *arguments: str) -> str:
    """Run *body* in a process of its own; return what it says."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body), *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_span_that_starts_is_written_down(journal: Journal) -> None:
    """If the process is killed now, this is what will be told of it."""
    live = Step(kind=SpanKind.CLIENT)
    live.remote_parent = True
    record = span(
        "load",
        live,
        parent_id=b"parent-1",
        heartbeat_timeout=30.0,
        max_duration=0.5,
    )

    journal.take(record)

    slot = slot_of(journal.path)
    assert slot.state is State.OPEN
    assert slot.trace_id == record.trace_id
    assert slot.span_id == record.span_id
    assert slot.parent_id == b"parent-1"
    assert slot.parent_is_remote
    assert slot.kind is SpanKind.CLIENT
    assert slot.flags == 1
    assert slot.thread_id == threading.get_ident()
    assert slot.started_at == slot.last_beat == STARTED_AT
    assert (slot.heartbeat_timeout, slot.max_duration) == (30.0, 0.5)
    assert (slot.name, slot.operation) == ("load", None)
    assert (slot.scope_name, slot.scope_version) == ("support", "1.2")
    assert slot.attributes == {}
    assert (slot.outcome, slot.ended_by, slot.error_type) == (None, None, None)


@pytest.mark.parametrize("time", [1, 2])
def test_of_the_attributes_only_names_are_written(journal: Journal, time: int) -> None:
    """Content and credentials never enter the journal: not at the first time either."""
    live = Step(
        {
            semconv.GEN_AI_REQUEST_MODEL: "gpt-5",
            semconv.GEN_AI_PROVIDER_NAME: "openai",
            semconv.GEN_AI_AGENT_NAME: ["not", "a", "name"],
            semconv.GEN_AI_INPUT_MESSAGES: "the secret",
            semconv.USER_ID: "the secret",
        }
    )
    for _ in range(time):
        record = span("chat gpt-5", live, operation="chat")
        record.note = "the secret"
        journal.take(record)

    slot = slots_of(journal.path)[-1]
    assert slot.operation == "chat"
    assert slot.attributes == {
        semconv.GEN_AI_REQUEST_MODEL: "gpt-5",
        semconv.GEN_AI_PROVIDER_NAME: "openai",
    }
    assert b"secret" not in journal.path.read_bytes()


def test_spans_that_differ_in_one_name_do_not_get_each_others(
    journal: Journal,
) -> None:
    """Texts that come again are kept ready, each under all it is made of."""
    names = [
        {key: value}
        for key in (semconv.GEN_AI_REQUEST_MODEL, semconv.GEN_AI_AGENT_NAME)
        for value in ("one", "two")
    ] * 2
    lives = [Step(attributes) for attributes in names]
    for live in lives:
        journal.take(span("chat", live, operation="chat"))

    found = {slot.span_id: slot.attributes for slot in slots_of(journal.path)}

    assert [found[span_id] for span_id in sorted(found)] == names


def test_texts_that_never_come_again_are_not_kept(journal: Journal) -> None:
    """An application that numbers its span names must not grow for it."""
    for number in range(3000):
        record = span(f"page {number}")
        journal.take(record)
        assert slot_of(journal.path).name == f"page {number}"
        journal.free(record)

    assert len(journal._texts) <= 1024  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # memory has no other face


def test_a_span_of_another_library_is_written_without_what_it_does_not_tell(
    journal: Journal,
) -> None:
    """Adopted spans have a record and little else."""
    live = Live()

    journal.take(span("GET /", live, operation="http"))

    slot = slot_of(journal.path)
    assert (slot.name, slot.operation) == ("GET /", "http")
    assert (slot.kind, slot.flags) == (SpanKind.INTERNAL, 1)
    assert slot.scope_name == ""


def test_a_span_whose_object_is_gone_is_written(journal: Journal) -> None:
    """It is collected and will be swept; until then it is open."""
    record = span("short", Step())

    journal.take(record)

    assert record() is None
    assert slot_of(journal.path).name == "short"


def test_what_a_slot_says_of_a_span_is_known_without_one(journal: Journal) -> None:
    """Records that tell of open spans say no more than what a crash would leave."""
    live = Step({semconv.GEN_AI_TOOL_NAME: "x" * 300, semconv.USER_ID: "the secret"})
    record = span("n" * 300, live, parent_id=b"parent-1", operation="execute_tool")

    kept = as_kept(record)

    journal.take(record)
    written = slot_of(journal.path)
    assert kept is not None
    assert kept == written._replace(sequence=kept.sequence, number=kept.number)
    assert kept.name == "n" * 128


@pytest.mark.parametrize(
    ("name", "value"),
    [("started_at", -1), ("trace_id", bytes(16)), ("span_id", bytes(8))],
)
def test_of_a_span_that_a_slot_cannot_hold_there_is_nothing_to_say(
    name: str, value: object
) -> None:
    """Whoever tells of open spans leaves it out, and tells of the others."""
    record = span()
    setattr(record, name, value)

    assert as_kept(record) is None


def test_a_heartbeat_reaches_the_file(journal: Journal) -> None:
    """It is how other processes see that a span makes progress."""
    record = span()
    journal.take(record)

    record.beat()

    assert slot_of(journal.path).last_beat == COARSE.now


def test_a_span_that_returned_is_written_as_ended(journal: Journal) -> None:
    """Until it is in the spool, the slot is all there is of its end."""
    record = span()
    journal.take(record)

    journal.ended(record, NOW, RETURNED)

    slot = slot_of(journal.path)
    assert slot.state is State.ENDED
    assert (slot.outcome, slot.ended_by) == (Outcome.OK, EndedBy.RETURN)
    assert slot.end_time == NOW
    assert slot.error_type is None


def test_a_span_that_failed_is_written_with_its_class_of_error(
    journal: Journal,
) -> None:
    """The class is a name; the message may quote what was traced."""
    record = span()
    journal.take(record)

    journal.ended(record, NOW, FAILED)

    slot = slot_of(journal.path)
    assert (slot.outcome, slot.ended_by) == (Outcome.ERROR, EndedBy.EXCEPTION)
    assert slot.error_type == "KeyError"
    assert b"secret" not in journal.path.read_bytes()


def test_every_ending_is_read_as_it_was_written(journal: Journal) -> None:
    """There are tables between the two."""
    for outcome in Outcome:
        for ended_by in EndedBy:
            record = span()
            journal.take(record)
            journal.ended(record, NOW, Ending(outcome, ended_by))

            slot = slot_of(journal.path)
            assert (slot.outcome, slot.ended_by) == (outcome, ended_by)
            journal.free(record)


def test_ending_that_is_cut_short_and_gone_on_with_ends_once(journal: Journal) -> None:
    """The registry resumes it from its beginning."""
    record = span()
    journal.take(record)

    journal.ended(record, NOW, FAILED)
    journal.ended(record, NOW + 1, RETURNED)

    slot = slot_of(journal.path)
    assert (slot.outcome, slot.end_time) == (Outcome.OK, NOW + 1)


@pytest.mark.parametrize("end_time", [-1, 2**64])
def test_an_end_at_no_time_is_an_end(journal: Journal, end_time: int) -> None:
    """Bad input is survived where it is traced."""
    record = span()
    journal.take(record)

    journal.ended(record, end_time, RETURNED)

    assert slot_of(journal.path).state is State.ENDED


def test_a_judged_span_is_told_apart(journal: Journal) -> None:
    """Recovery must not tell its end a second time."""
    record, other = span(), span()
    journal.take(record)
    journal.take(other)

    journal.judged(record)
    journal.judged(other, Ending(Outcome.STUCK, EndedBy.WATCHDOG))

    told = {slot.span_id: slot for slot in slots_of(journal.path)}
    assert told[record.span_id].state is State.JUDGED
    assert told[record.span_id].outcome is None
    assert told[other.span_id].outcome is Outcome.STUCK
    assert told[other.span_id].error_type == "stuck"


def test_a_freed_slot_is_the_next_spans(journal: Journal, unwritten: Unwritten) -> None:
    """Otherwise a service would fill its disk with what is over."""
    for number in range(1000):
        record = span(f"step {number % 3}")
        journal.take(record)
        journal.ended(record, NOW, FAILED if number % 2 else RETURNED)
        journal.free(record)
        journal.free(record)

    assert slots_of(journal.path) == []
    assert journal.slots == 64
    assert unwritten.count == 0


def test_heartbeats_of_a_freed_span_hit_nobody(journal: Journal) -> None:
    """A stuck span would look alive because of one that has long ended."""
    first, second = span(), span()
    journal.take(first)
    journal.free(first)
    journal.take(second)

    first.beat()
    journal.ended(first, NOW, RETURNED)
    journal.judged(first)

    slot = slot_of(journal.path)
    assert slot.span_id == second.span_id
    assert slot.last_beat == STARTED_AT
    assert slot.state is State.OPEN


def test_spans_that_find_no_slot_are_kept_in_memory_and_counted(
    journal: Journal, unwritten: Unwritten
) -> None:
    """Nothing is lost but what the journal would have been good for."""
    records = [span() for _ in range(70)]

    for record in records:
        journal.take(record)
        record.beat()
        assert record.last_beat == max(COARSE.now, STARTED_AT)
    for record in records:
        journal.ended(record, NOW, RETURNED)

    assert len(slots_of(journal.path)) == 64
    assert unwritten.count == 6
    for record in records:
        journal.free(record)
    assert slots_of(journal.path) == []


def test_growing_moves_nothing(tmp_path: Path, unwritten: Unwritten) -> None:
    """Records and readers hold on to what is there."""
    low = Calls()
    journal = Journal(tmp_path, first_slots=64, on_low=low)
    records = [span(f"step {number}") for number in range(200)]
    for record in records[:64]:
        journal.take(record)
    assert low.count == 1, "it is asked for once"
    assert journal.grow()
    assert journal.grow()
    for record in records[64:]:
        journal.take(record)
    for record in records:
        record.beat()

    found = slots_of(journal.path)
    assert journal.slots == 256
    assert journal.size == journal.path.stat().st_size
    assert {slot.name for slot in found} == {f"step {n}" for n in range(200)}
    assert {slot.last_beat for slot in found} == {COARSE.now}
    assert unwritten.count == 0
    journal.close(remove=True)


def test_the_journal_grows_on_a_thread_of_its_own(tmp_path: Path) -> None:
    """The disk is not waited for by the application."""
    journal = Journal(tmp_path, first_slots=64)
    names: list[str] = []
    grown = threading.Event()
    add = journal._file.add  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # when it happens is what this is about

    def noted(slots: int) -> object:
        names.append(threading.current_thread().name)
        try:
            return add(slots)
        finally:
            grown.set()

    journal._file.add = noted  # type: ignore[assignment, method-assign]  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue, reportPrivateUsage]  # the same

    for _ in range(64):
        journal.take(span())

    assert grown.wait(DEADLINE)
    assert names == ["agenttrace-journal"]
    journal.close(remove=True)


def test_no_thread_is_started_before_it_is_needed(tmp_path: Path) -> None:
    """Most processes have less open spans than a journal has slots."""
    before = threading.active_count()

    journal = Journal(tmp_path)
    for _ in range(100):
        journal.take(span())

    assert threading.active_count() == before
    assert journal.slots == 4096
    journal.close(remove=True)


def test_records_of_the_journal_before_go_on(tmp_path: Path) -> None:
    """A second `configure()` comes in the middle of whatever runs."""
    memory = MemorySlots()
    old = Journal(tmp_path, first_slots=64, on_low=lambda: None, previous=memory)
    in_memory, in_old, in_new, left = span("memory"), span("old"), span("new"), span()
    memory.take(in_memory)
    old.take(in_old)
    old.take(left)
    new = Journal(tmp_path, first_slots=64, on_low=lambda: None, previous=old)
    new.take(in_new)

    for record in (in_memory, in_old, in_new):
        new.ended(record, NOW, RETURNED)
    new.judged(left)

    ended, judged = slots_of(old.path)
    assert {ended.state, judged.state} == {State.ENDED, State.JUDGED}
    assert slot_of(new.path).state is State.ENDED
    for record in (in_memory, in_old, in_new, left):
        new.free(record)
        assert record.slot == -1
    assert slots_of(old.path) == slots_of(new.path) == []
    old.close(remove=True)
    new.close(remove=True)


def test_a_closed_journal_keeps_spans_in_memory(tmp_path: Path) -> None:
    """Spans outlive their runtime; they must not fail for it."""
    journal = Journal(tmp_path, first_slots=64)
    before, after = span(), span()
    journal.take(before)

    journal.close(remove=True)

    journal.take(after)
    for record in (before, after):
        record.beat()
        journal.ended(record, NOW, FAILED)
        journal.free(record)
    journal.tick()
    journal.close(remove=True)
    assert not journal.grow()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_removed_journal_is_unmapped_with_its_last_record(tmp_path: Path) -> None:
    """A second `configure()` must not leave the memory of the first behind."""
    journal = Journal(tmp_path, first_slots=64)
    name = journal.instance.encode()
    maps = Path("/proc/self/maps")
    record = span()
    journal.take(record)

    journal.close(remove=True)
    while_open = name in maps.read_bytes()
    journal.ended(record, NOW, FAILED)
    journal.free(record)

    assert while_open
    assert name not in maps.read_bytes()


def test_a_journal_that_is_left_can_be_taken_over(tmp_path: Path) -> None:
    """Somebody else is to recover what is in it."""
    journal = Journal(tmp_path, first_slots=64)
    journal.take(span("left"))

    journal.close(remove=False)

    lock = take_over(journal.lock.path)
    assert lock is not None
    assert slot_of(journal.path).name == "left"
    lock.release(remove=True)


def test_the_header_tells_whose_journal_it_is(journal: Journal) -> None:
    """Recovery has nothing else to make up a lost span from."""
    COARSE.renew()
    journal.tick()

    with read_journal(journal.path) as reading:
        header = reading.header
    assert header.pid == os.getpid()
    assert journal.instance.startswith(f"{header.pid}-")
    assert header.resource == b"support"
    assert header.started_at < header.last_tick == COARSE.now


def test_what_it_writes_is_private(journal: Journal) -> None:
    """Names of spans are nobody else's business."""
    directory = journal.path.parent

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()} == {
        0o600
    }


@pytest.mark.parametrize(
    ("field", "value"), [("max_duration", "soon"), ("trace_id", None)]
)
def test_a_span_that_cannot_be_written_is_kept_in_memory(
    journal: Journal, field: str, value: object
) -> None:
    """It starts on an application's thread, and must start."""
    record, next_one = span(), span()
    setattr(record, field, value)

    journal.take(record)
    journal.take(next_one)
    record.beat()
    journal.ended(record, NOW, RETURNED)
    journal.free(record)

    assert slot_of(journal.path).span_id == next_one.span_id


def test_a_name_that_is_no_text_is_written_as_one(journal: Journal) -> None:
    """The SDK starts such spans, and so do we."""
    live = Live()
    record = span("", live)
    record.name = 7  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]  # what this is about

    journal.take(record)

    assert slot_of(journal.path).name == "7"


def test_lone_surrogates_are_written_as_something(journal: Journal) -> None:
    """A name may come out of a file name that is no UTF-8."""
    journal.take(span("step \ud800"))

    assert slot_of(journal.path).name == "step ?"


def test_the_registry_works_with_it(journal: Journal) -> None:
    """It is a `Slots` as any other."""
    registry = OpenSpans(journal, wake=None)
    record = span()

    registry.started(record)
    registry.claim(record)

    assert isinstance(record, OpenSpan)
    assert slot_of(journal.path).span_id == record.span_id


def test_a_read_only_directory_is_an_os_error(tmp_path: Path) -> None:
    """The one exception on which callers go on in memory; nothing is left behind."""
    told = run(
        """
        import os, sys
        from pathlib import Path
        from agenttrace.journal import Journal
        directory = Path(sys.argv[1])
        directory.chmod(0o500)
        if os.geteuid() == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            Journal(directory)
        except OSError as error:
            print(error.errno)
        """,
        str(tmp_path),
    )

    assert int(told) in (errno.EACCES, errno.EROFS, errno.EPERM)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_full_disk_at_the_start_is_an_os_error_that_leaves_nothing(
    tmp_path: Path,
) -> None:
    """A hole in the file would kill the process with SIGBUS later on."""
    told = run(
        """
        import resource, sys
        from pathlib import Path
        from agenttrace.journal import Journal
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            Journal(Path(sys.argv[1]))
        except OSError as error:
            print("refused", list(Path(sys.argv[1]).iterdir()))
        """,
        str(tmp_path),
    )

    assert told.strip() == "refused []"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_disk_that_becomes_full_costs_crash_safety_alone(tmp_path: Path) -> None:
    """It is said once, counted, and not tried again for every span."""
    told = run(
        """
        import logging, resource, sys, threading
        from pathlib import Path
        from agenttrace import safety
        from agenttrace.journal import Journal
        from tests.journal.given import slots_of, span
        from agenttrace.model import RETURNED

        logging.basicConfig(format="%(message)s", stream=sys.stdout)
        calls = []
        journal = Journal(Path(sys.argv[1]), first_slots=64,
                          on_low=lambda: calls.append(journal.grow()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size, journal.size))
        records = [span() for _ in range(500)]
        for record in records:
            journal.take(record)
        print(len(slots_of(journal.path)), safety.counts()["spans_not_journaled"])
        print(calls)
        for record in records:
            journal.ended(record, 1, RETURNED)
            journal.free(record)
        print(slots_of(journal.path))
        """,
        str(tmp_path),
    )

    log, counts, calls, left = told.splitlines()
    assert "cannot grow" in log
    assert counts == "64 436"
    assert calls == "[False]"
    assert left == "[]"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_touches_nothing_of_its_parents(tmp_path: Path) -> None:
    """The memory is shared: what the child writes there, its parent would be."""
    told = run(
        """
        import os, sys
        from pathlib import Path
        from agenttrace.clock import COARSE
        from agenttrace.journal import Journal, read_journal, take_over
        from agenttrace.model import RETURNED
        from agenttrace.registry import OpenSpans
        from tests.journal.given import STARTED_AT, slot_of, span

        journal = Journal(Path(sys.argv[1]), first_slots=64)
        registry = OpenSpans(journal)
        record, ended = span("parent's"), span("gone")
        registry.started(record)
        registry.started(ended)
        registry.claim(ended)
        journal.free(ended)
        if os.fork() == 0:
            registry.forget()
            COARSE.now += 10**9
            record.beat()
            journal.tick()
            for number in range(3):
                other = span("child's")
                journal.take(other)
                journal.ended(other, 1, RETURNED)
                journal.free(other)
            journal.free(record)
            journal.close(remove=True)
            own = Journal(Path(sys.argv[1]), first_slots=64)
            own.take(span("its own"))
            print(slot_of(own.path).name, flush=True)
            own.close(remove=True)
            os._exit(0)
        os.wait()
        slot = slot_of(journal.path)
        print(slot.name, slot.state.name, slot.last_beat == STARTED_AT)
        with read_journal(journal.path) as reading:
            print(reading.header.last_tick == COARSE.now)
        print(journal.lock.is_held, take_over(journal.lock.path))
        """,
        str(tmp_path),
    )

    assert told.splitlines() == [
        "its own",
        "parent's OPEN True",
        "True",
        "True None",
    ]


class Meanwhile(dict[str, object]):
    """Attributes of an ending; while they are read, another thread does something."""

    def __init__(self, what: Callable[[], None]) -> None:
        super().__init__()
        self._what = what

    def get(self, key: str, default: object = None, /) -> Any:  # noqa: ANN401 - dict's
        self._what()
        return super().get(key, default)


@pytest.mark.parametrize("tell", [Journal.judged, Journal.ended])
def test_a_slot_that_is_freed_while_an_end_is_written_is_not_written_any_more(
    journal: Journal, tell: Callable[..., None]
) -> None:
    """A judge and an owner may come at once; the next span would be told as ended."""
    first, following = span("first"), span("following")
    journal.take(first)

    def free_and_take() -> None:
        journal.free(first)
        journal.take(following)

    told = Ending(Outcome.STUCK, EndedBy.WATCHDOG, attributes=Meanwhile(free_and_take))
    if tell is Journal.ended:
        journal.ended(first, NOW, told)
    else:
        journal.judged(first, told)
    while_open = slot_of(journal.path)
    journal.ended(following, NOW, RETURNED)
    ended = slot_of(journal.path)
    journal.free(following)

    assert (while_open.name, while_open.state) == ("following", State.OPEN)
    assert (ended.name, ended.state, ended.outcome) == (
        "following",
        State.ENDED,
        Outcome.OK,
    )
    assert slots_of(journal.path) == []
    assert not journal.is_needed
