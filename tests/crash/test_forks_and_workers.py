"""Processes that come of one another: own files for each, nothing twice, nothing lost.

That a child has spans of its own and none of its parent's is `test_runtime`'s, and a
fork in the middle of an import `test_forks`'s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.crash.given import collector_of_programs, endings, recover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.delivery.collector import Collector

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")

OK = ("ok", "return")
BY_RECOVERY = ("lost", "recovery")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collector_of_programs() as collector:
        yield collector


def run_file(directory: Path, program: str, *arguments: str) -> str:
    """Run *program* from a file, as `spawn` needs it; return what it printed."""
    file = directory / "program.py"
    file.write_text(textwrap.dedent(program))
    done = subprocess.run(
        [sys.executable, str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_killed_inside_a_span_is_told_by_its_parent_that_lives_on(
    tmp_path: Path, collector: Collector
) -> None:
    """A supervisor sees its worker die, and does not die of it."""
    printed = run_file(
        tmp_path,
        """
        import os, signal
        import agenttrace

        runtime = agenttrace.configure(service_name="family")
        with agenttrace.span("parent"):
            pid = os.fork()
            if pid == 0:
                with agenttrace.span("child"):
                    os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(pid, 0)
            found = agenttrace.recover(timeout=30)
            print(found.processes, found.lost)
        with agenttrace.span("later"):
            os.kill(os.getpid(), 0)
        directory = os.environ["AGENTTRACE_STATE_DIR"] + "/instances"
        names = sorted(os.listdir(directory))
        print(all(name.startswith(f"{os.getpid()}-") for name in names))
        """,
    )

    assert printed.split() == ["1", "1", "True"]
    told = endings(collector)
    assert told == {"parent": OK, "child": BY_RECOVERY, "later": OK}
    spans = {span.name: span for span in collector.spans()}
    assert spans["child"].parent_id == spans["parent"].span_id
    ids = {span.resource["service.instance.id"] for span in spans.values()}
    assert len(ids) == 2, "the child is told as another instance"


def test_a_parent_killed_while_its_children_live_is_told_by_one_of_them(
    tmp_path: Path, collector: Collector
) -> None:
    """The lock of a process does not live on in what it has forked."""
    run_file(
        tmp_path,
        """
        import os, signal
        import agenttrace

        if os.fork() == 0:  # the test waits for the first process only
            reader, writer = os.pipe()
            agenttrace.configure(service_name="family")
            with agenttrace.span("parent"):
                if os.fork() == 0:
                    os.close(writer)
                    os.read(reader, 1)  # until the parent is gone
                    with agenttrace.span("child"):
                        assert agenttrace.recover(timeout=30).lost == 1
                    os._exit(not agenttrace.shutdown(30))
                os.kill(os.getpid(), signal.SIGKILL)
        os.wait()
        """,
    )

    collector.wait_for(2, 30)
    assert endings(collector) == {"parent": BY_RECOVERY, "child": OK}


def test_forks_beside_busy_threads_neither_hang_nor_tell_twice(
    tmp_path: Path, collector: Collector
) -> None:
    """A fork may come while a thread of ours holds a lock, or writes a frame."""
    run_file(
        tmp_path,
        """
        import os, signal, threading
        import agenttrace

        agenttrace.configure(service_name="family")
        stop = threading.Event()

        def work(number):
            count = 0
            while not stop.is_set() and count < 3000:
                with agenttrace.span(f"thread {number} {count}"):
                    count += 1

        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for number in range(20):
            pid = os.fork()
            if pid == 0:
                signal.alarm(30)
                with agenttrace.span(f"child {number}"):
                    pass
                os._exit(not agenttrace.shutdown(20))
            assert os.waitpid(pid, 0)[1] == 0, number
        stop.set()
        for thread in threads:
            thread.join()
        """,
    )

    recover()
    told = endings(collector)
    assert set(told.values()) == {OK}
    assert sum(name.startswith("child") for name in told) == 20
    threads = sum(name.startswith("thread") for name in told)
    assert len(told) == 20 + threads
    assert f"thread 0 {sum(name.startswith('thread 0') for name in told) - 1}" in told


POOLS = """
    import multiprocessing, os, signal, sys
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    import agenttrace

    def configure():
        agenttrace.configure(service_name="pool")

    def task(number):
        with agenttrace.span(f"task {number}"):
            return os.getpid()

    def die(number):
        with agenttrace.span(f"task {number}"):
            os.kill(os.getpid(), signal.SIGKILL)

    def hang(event, number):
        with agenttrace.span(f"task {number}"):
            event.set()
            signal.pause()

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        configure()
        with agenttrace.span("parent"):
            main(context)
"""
MAINS = {
    "a process": (
        """
    def main(context):
        process = context.Process(target=in_child)
        process.start()
        process.join()
        assert process.exitcode == 0

    def in_child():
        configure()
        task(1)
        """,
        {"task 1": OK},
    ),
    "a pool": (
        """
    def main(context):
        with context.Pool(2, configure, maxtasksperchild=2) as pool:
            pids = set(pool.map(task, range(8), chunksize=1))
            assert len(pids) >= 4
            pool.close()
            pool.join()
        """,
        {f"task {number}": OK for number in range(8)},
    ),
    "a pool that is terminated": (
        """
    def main(context):
        event = context.Manager().Event()
        with context.Pool(1, configure) as pool:
            pool.apply_async(hang, (event, 1))
            event.wait(30)
        """,
        {"task 1": BY_RECOVERY},
    ),
    "an executor whose worker dies": (
        """
    def main(context):
        with ProcessPoolExecutor(1, context, configure) as pool:
            try:
                pool.submit(die, 1).result()
            except BrokenProcessPool:
                pass
        with ProcessPoolExecutor(1, context, configure) as pool:
            pool.submit(task, 2).result()
        """,
        {"task 1": BY_RECOVERY, "task 2": OK},
    ),
}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("name", MAINS)
def test_what_workers_do_is_told_once(
    tmp_path: Path, collector: Collector, name: str, method: str
) -> None:
    """However a worker begins, and however it ends."""
    main, expected = MAINS[name]
    start, guard, end = textwrap.dedent(POOLS).partition("if __name__")

    run_file(tmp_path, start + textwrap.dedent(main) + guard + end, method)

    recover()
    assert endings(collector) == {"parent": OK, **expected}


def test_an_executor_may_renew_its_workers_after_each_task(
    tmp_path: Path, collector: Collector
) -> None:
    """`max_tasks_per_child` makes processes come and go while others work."""
    start, guard, end = textwrap.dedent(POOLS).partition("if __name__")
    main = """
    def main(context):
        executor = ProcessPoolExecutor(2, context, configure, max_tasks_per_child=1)
        with executor as pool:
            assert len(set(pool.map(task, range(6)))) == 6
    """

    run_file(tmp_path, start + textwrap.dedent(main) + guard + end, "spawn")

    recover()
    tasks = {f"task {number}": OK for number in range(6)}
    assert endings(collector) == {"parent": OK, **tasks}


def test_a_child_of_a_process_that_has_shut_down_keeps_no_files(
    tmp_path: Path, collector: Collector
) -> None:
    """It traces nothing; there would be nobody to remove them."""
    printed = run_file(
        tmp_path,
        """
        import os, sys
        import agenttrace

        agenttrace.configure(service_name="family")
        with agenttrace.span("before"):
            pass
        agenttrace.shutdown(30)
        pid = os.fork()
        if pid == 0:
            with agenttrace.span("after"):
                sys.exit(0)
        os.waitpid(pid, 0)
        print(os.listdir(os.environ["AGENTTRACE_STATE_DIR"] + "/instances"))
        """,
    )

    assert printed == "[]\n"
    assert endings(collector) == {"before": OK}
