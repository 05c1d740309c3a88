"""From the queue to a real collector, on its good days and its bad ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from agenttrace import safety
from agenttrace.delivery.senders.http import HttpSender
from agenttrace.delivery.spooler import Spooler
from tests.delivery.collector import Collector, Reply, partial_success
from tests.delivery.given import Item, put, spooling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.delivery.collector import Received


@pytest.fixture(autouse=True)
def _fresh_counters() -> Iterator[None]:
    safety.reset_for_tests()
    yield
    safety.reset_for_tests()


def ids(spans: Sequence[Received] | Sequence[Item]) -> Counter[str]:
    """Return the span ids, and how often each occurs."""
    return Counter(
        span.span.span_id.hex() if isinstance(span, Item) else span.span_id
        for span in spans
    )


def test_a_burst_loses_nothing_to_a_backend_that_is_far_away() -> None:
    """An agent that fans out ends its spans all at once."""
    with Collector(usual=Reply(delay=0.3)) as collector:
        with spooling(HttpSender(collector.endpoint)) as spooler:
            items = put(spooler, 50_000)
            settled = spooler.flush(60)
            status = spooler.status()

        assert settled
        assert ids(collector.spans()) == ids(items)
    assert (status.acknowledged, status.dropped) == (50_000, 0)
    assert status.lanes[0].retries == 0


def test_what_a_busy_collector_turns_away_arrives_later_and_once() -> None:
    """503 with a date, 429 with seconds, 502 with nothing: then it takes it all."""
    with Collector() as collector:
        collector.answer(Reply(503, {"retry-after": "0"}), Reply(429), Reply(502))
        with spooling(HttpSender(collector.endpoint)) as spooler:
            items = put(spooler, 100)
            settled = spooler.flush(30)

        assert settled
        assert ids(collector.spans()) == ids(items)
        assert len({request.body for request in collector.requests[:4]}) == 1


def test_what_was_put_before_the_collector_came_up_arrives() -> None:
    """In a container they start side by side, and the application is quicker."""
    with Collector() as gone:
        port = gone.port
    with spooling(HttpSender(f"http://127.0.0.1:{port}/v1/traces")) as spooler:
        items = put(spooler, 100)
        first = spooler.flush(0.2)

        with Collector(port=port) as collector:
            second = spooler.flush(30)
            arrived = collector.spans()

    assert not first
    assert second
    assert ids(arrived) == ids(items)


def test_an_answer_that_never_came_brings_the_same_bytes_again() -> None:
    """What cannot be known to have arrived is sent again, and merges."""
    with Collector() as collector:
        collector.answer(Reply(raw=b""), Reply(raw=b"\x00garbage"), Reply(hangs=True))
        with spooling(HttpSender(collector.endpoint), timeout=0.2) as spooler:
            items = put(spooler, 10)
            settled = spooler.flush(30)

        assert settled
        # More than four where the last answer took longer than that, too.
        assert len(collector.requests) >= 4
        assert len({request.body for request in collector.requests}) == 1
        assert set(ids(collector.spans())) == set(ids(items))


def test_a_refused_batch_is_gone_and_the_next_one_arrives() -> None:
    """400 says that it will never be taken."""
    with Collector() as collector:
        collector.answer(Reply(400), partial_success(1, "too long"))
        with spooling(HttpSender(collector.endpoint)) as spooler:
            put(spooler, 3)
            spooler.flush(30)
            put(spooler, 3)
            spooler.flush(30)
            status = spooler.status()

    assert (status.acknowledged, status.dropped) == (2, 4)
    assert status.lanes[0].last_error == "rejected some spans: too long"


@pytest.mark.parametrize("reply", [Reply(hangs=True), Reply(drip=0.02)])
def test_no_way_out_waits_for_a_collector_that_hangs(reply: Reply) -> None:
    """Flushing and shutting down end when they were told to."""
    with Collector(usual=reply) as collector:
        spooler = Spooler([HttpSender(collector.endpoint)], timeout=1.0, linger=0.005)
        put(spooler, 10)
        collector.wait_for_requests(1)
        begun = time.monotonic()

        flushed = spooler.flush(0.2)
        down = spooler.shutdown(0.2)

        assert time.monotonic() - begun < 10
        for thread in spooler.threads:  # the request's own limit ends it
            thread.join(30)
            assert not thread.is_alive()
    assert not flushed
    assert not down


def test_a_collector_that_is_down_does_not_hold_back_the_other() -> None:
    """Two destinations are common while one backend replaces another."""
    with Collector() as gone:
        dead = gone.endpoint
    with (
        Collector() as collector,
        spooling(HttpSender(dead), HttpSender(collector.endpoint)) as spooler,
    ):
        items = put(spooler, 200)

        arrived = collector.wait_for(200)

        assert ids(arrived) == ids(items)
        assert spooler.status().acknowledged == 0


def run(program: str, endpoint: str, timeout: float = 30) -> str:
    """Run *program* in an interpreter of its own; return what it prints."""
    setup = (
        "import atexit, os, sys, time\n"
        "from agenttrace.delivery.senders.http import HttpSender\n"
        "from agenttrace.delivery.spooler import Spooler\n"
        "from tests.delivery.given import Item\n"
        "spooler = Spooler([HttpSender(sys.argv[1])])\n"
    )
    done = subprocess.run(
        # A fork beside running threads is what is tested; later versions warn of it.
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            setup + program,
            endpoint,
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p or "." for p in sys.path)},
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


def test_a_span_that_ends_while_the_interpreter_exits_arrives() -> None:
    """By then no thread can be started, and the first span may be the last."""
    program = (
        "atexit.register(spooler.shutdown, 10)\n"
        "atexit.register(lambda: spooler.put(Item('at exit')))\n"
    )

    with Collector() as collector:
        run(program, collector.endpoint)

        assert [span.name for span in collector.spans()] == ["at exit"]


@pytest.mark.parametrize("reply", [Reply(hangs=True), Reply(503)])
def test_an_exit_is_bounded_and_quiet_when_the_collector_is_not_there(
    reply: Reply,
) -> None:
    """A process that should be gone and is not is worse than a lost span."""
    program = (
        "import logging; logging.getLogger('agenttrace').setLevel('CRITICAL')\n"
        "spooler.put(Item())\n"
        "begun = time.monotonic()\n"
        "spooler.shutdown(0.5)\n"
        "print(time.monotonic() - begun < 15)\n"
    )

    with Collector(usual=reply) as collector:
        begun = time.monotonic()
        printed = run(program, collector.endpoint)

        assert printed == "True\n"
        assert time.monotonic() - begun < 60


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_after_a_fork_each_process_sends_its_own_spans_and_no_other() -> None:
    """A server that forks its workers; the parent's spans are the parent's to send."""
    program = (
        "spooler.put(Item('warm'))\n"
        "spooler.flush(30)\n"
        "os.register_at_fork(after_in_child=spooler.reset_after_fork)\n"
        "for number in range(200): spooler.put(Item('parent'))\n"
        "pids = []\n"
        "for worker in range(2):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        for number in range(50): spooler.put(Item(f'child {worker}'))\n"
        "        done = spooler.shutdown(20)\n"
        "        os._exit(0 if done else 1)\n"
        "    pids.append(pid)\n"
        "print([os.waitpid(pid, 0)[1] for pid in pids], spooler.shutdown(20))\n"
    )

    with Collector() as collector:
        printed = run(program, collector.endpoint)
        names = Counter(span.name for span in collector.spans())
        connections = {
            request.spans[0].name: request.client
            for request in collector.requests
            if request.spans
        }

    assert printed == "[0, 0] True\n"
    assert names == {"warm": 1, "parent": 200, "child 0": 50, "child 1": 50}
    assert connections["child 0"] != connections["child 1"] != connections["parent"]
    assert connections["child 0"] != connections["parent"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_during_the_first_import_leaves_no_lock_behind() -> None:
    """A server that forks at once would have workers that can never import it."""
    program = (
        "import threading\n"
        "os.register_at_fork(after_in_child=spooler.reset_after_fork)\n"
        "spooler.put(Item('parent'))\n"
        "while 'requests' not in sys.modules: time.sleep(0)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    importing = threading.Thread(\n"
        "        target=__import__, args=['requests.sessions'], daemon=True)\n"
        "    importing.start()\n"
        "    importing.join(10)\n"
        "    spooler.put(Item('child'))\n"
        "    done = spooler.shutdown(10)\n"
        "    os._exit(0 if done and not importing.is_alive() else 1)\n"
        "print(os.waitpid(pid, 0)[1], spooler.shutdown(10))\n"
    )

    with Collector() as collector:
        printed = run(program, collector.endpoint)
        names = sorted(span.name for span in collector.spans())

    assert printed == "0 True\n"
    assert names == ["child", "parent"]
