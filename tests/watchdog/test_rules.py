"""A span is stuck when it has been silent for too long, and only then."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agenttrace.watchdog.rules import SECOND, Facts, Healthy, judge
from agenttrace.watchdog.verdict import OVERDUE, SILENCE, Verdict

instants = st.integers(0, 10**18)
limits = st.integers(1, 10**13)
maybe_limits = st.none() | limits


@st.composite
def known_facts(draw: st.DrawFn) -> Facts:
    """Return what may be known of a span."""
    started = draw(st.integers(0, 10**18))
    return Facts(
        started,
        started + draw(st.integers(0, 10**12)),
        silence=draw(maybe_limits),
        duration=draw(maybe_limits),
        held=draw(st.integers(0, 10**12)),
        is_held=draw(st.booleans()),
        is_shielded=draw(st.booleans()),
    )


def test_a_slow_stream_that_keeps_sending_is_never_stuck() -> None:
    """Total age is not this rule's business: an item a second is progress."""
    answers = [
        judge(Facts(0, second * SECOND, silence=30 * SECOND), (second + 1) * SECOND)
        for second in range(600)
    ]

    assert all(isinstance(answer, Healthy) for answer in answers)


@given(instants, limits)
def test_asking_again_at_the_promised_instant_gives_the_final_answer(
    beat: int, limit: int
) -> None:
    """A watchdog that looks at `Healthy.until` looks once, not in a loop."""
    first = judge(Facts(beat, beat, silence=limit), beat)

    assert isinstance(first, Healthy)
    assert first.until is not None
    answer = judge(Facts(beat, beat, silence=limit), first.until)
    assert isinstance(answer, Verdict)
    assert (answer.rule, answer.limit) == (SILENCE, limit / SECOND)


@given(known_facts(), st.integers(0, 10**14))
def test_what_is_healthy_is_so_until_later(known: Facts, passed: int) -> None:
    """An instant that is not later than now would be a watchdog at full speed."""
    now = known.beat + passed

    answer = judge(known, now)

    assert not isinstance(answer, Healthy) or answer.until is None or answer.until > now


@given(known_facts(), st.integers(0, 10**14))
def test_a_verdict_names_a_limit_that_has_passed(known: Facts, passed: int) -> None:
    """Whoever reads it is to find in it what was set."""
    now = known.beat + passed

    answer = judge(known, now, at=7)

    if isinstance(answer, Verdict):
        assert not known.is_held
        assert (answer.at, answer.idle) == (7, passed / SECOND)
        if answer.rule == SILENCE:
            assert known.silence is not None
            assert passed >= known.silence
            assert not known.is_shielded
        else:
            assert known.duration is not None
            assert now - known.started - known.held >= known.duration


@given(known_facts(), st.integers(0, 10**14))
def test_in_a_hold_nothing_passes(known: Facts, passed: int) -> None:
    """It was declared that it waits: for a human, a queue, a schedule."""
    known.is_held = True

    assert isinstance(judge(known, known.beat + passed), Healthy)


@given(instants, limits, limits)
def test_beneath_an_open_child_only_the_total_time_counts(
    beat: int, limit: int, more: int
) -> None:
    """The deepest open step is to blame, and whoever waits for it is healthy."""
    known = Facts(beat, beat, silence=limit, duration=limit, is_shielded=True)

    answer = judge(known, beat + limit + more)

    assert isinstance(answer, Verdict)
    assert answer.rule == OVERDUE


def test_the_time_in_holds_is_no_part_of_the_total_time() -> None:
    """A run that waits a weekend for its approval has not taken a weekend."""
    known = Facts(0, 0, duration=10 * SECOND, held=100 * SECOND)

    in_time, passed = judge(known, 109 * SECOND), judge(known, 110 * SECOND)

    assert isinstance(in_time, Healthy)
    assert isinstance(passed, Verdict)


def test_of_two_limits_the_one_that_passed_first_is_told() -> None:
    """They may be found together, when the machine was slow."""
    silent_first = Facts(0, 0, silence=1, duration=2)
    overdue_first = Facts(0, 0, silence=2, duration=1)

    answers = [judge(silent_first, 3), judge(overdue_first, 3)]

    rules = [answer.rule for answer in answers if isinstance(answer, Verdict)]
    assert rules == [SILENCE, OVERDUE]


@given(instants, st.integers(0, 10**18))
def test_without_limits_everything_is_healthy(beat: int, passed: int) -> None:
    """`math.inf` is no limit, and there is nothing to ask again for."""
    answer = judge(Facts(beat, beat), beat + passed)

    assert isinstance(answer, Healthy)
    assert answer.until is None
