"""A fork may come at any instant, also while another thread is importing."""

from __future__ import annotations

import os

import pytest

from tests.core.programs import run


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_while_a_verb_is_imported_can_use_that_verb() -> None:
    """A server forks its workers while its first span starts: none may hang for it."""
    ran = run(
        """
        import importlib.abc, os, signal, sys, threading
        import agenttrace

        importing, forked = threading.Event(), threading.Event()

        class Slow(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "agenttrace.api":
                    importing.set()
                    forked.wait(0.5)  # a fork that comes meanwhile has to wait

        sys.meta_path.insert(0, Slow())
        os.register_at_fork(after_in_parent=forked.set)
        thread = threading.Thread(target=lambda: agenttrace.span)
        thread.start()
        importing.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            agenttrace.span
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        thread.join()
        """,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )

    assert (ran.out, ran.err) == ("0\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_is_forked_whatever_was_imported_since_the_start() -> None:
    """The SDK's own hook submits to a pool whose lock the fork may hold."""
    ran = run(
        """
        import os, signal
        import agenttrace

        agenttrace.configure(service_name="parent")
        from concurrent.futures import ThreadPoolExecutor

        assert ThreadPoolExecutor(1).submit(int, "7").result() == 7
        pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            with agenttrace.span("in the child"):
                found = ThreadPoolExecutor(1).submit(int, "7").result()
            os._exit(found - 7)
        print(os.waitpid(pid, 0)[1])
        """,
        PYTHONWARNINGS="ignore::DeprecationWarning",
    )

    assert (ran.out, ran.err) == ("0\n", "")
