"""A test that leaves a span open fails, and says which one and where it was started.

Every suite here is real, and run by a pytest of its own.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING

import pytest

from tests.testing.given import expected

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytestmark = pytest.mark.usefixtures("few_plugins")

AGENT = """
    import contextlib

    import pytest

    import agenttrace

    agenttrace.configure(service_name="suite")
    kept = []


    @agenttrace.agent
    def triage(question):
        yield from question.split()


    def leak():
        stream = triage("the weather")
        next(stream)
        kept.append(stream)
"""
"""What every suite begins with: an agent, and a way to leave its span open."""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Run:
    """Return what writes a suite and runs it, in its own order and from its folder."""

    def run(tests: str, *arguments: str, ini: str = "") -> pytest.RunResult:
        pytester.makefile(
            ".py", test_suite=textwrap.dedent(AGENT) + textwrap.dedent(tests)
        )
        pytester.makeini(
            "[pytest]\nasyncio_default_fixture_loop_scope = function\n" + ini
        )
        return pytester.runpytest_subprocess(
            "-p", "agenttrace.pytest_plugin", "-p", "no:randomly", *arguments
        )

    return run


def section(result: pytest.RunResult, title: str) -> str:
    """Return what stands beneath a headline of the report, times left out."""
    text = result.stdout.str()
    headline = re.compile(rf"^[_\- ]+{re.escape(title)}[_\- ]+$", re.MULTILINE)
    _, after = headline.split(text, maxsplit=1)
    beneath, *_ = re.split(r"^[_=\-]{3}", after, maxsplit=1, flags=re.MULTILINE)
    return re.sub(r"open for [\d.]+ m?s\b", "open for ...", beneath).strip("\n")


LEAKS = "--agenttrace-leaks=fail"
TWO_TESTS = """
    def test_that_leaks():
        leak()

    def test_that_is_clean():
        with contextlib.closing(triage("the weather")) as stream:
            next(stream)
"""


def test_a_test_that_leaks_fails_at_teardown_and_the_next_one_does_not(
    suite: Run,
) -> None:
    """The message is the product: which span, since when, where, and what to do."""
    result = suite(TWO_TESTS, LEAKS)

    result.assert_outcomes(passed=2, errors=1)
    assert section(result, "ERROR at teardown of test_that_leaks") == expected("""
        1 span left open: invoke_agent triage

          invoke_agent triage (open for ...)
            started at test_suite.py:18
                next(stream)
            It is a generator that was not read to its end: close it where it is left,
            with contextlib.closing().

        To allow it: @pytest.mark.agenttrace_allow_open("invoke_agent triage")
    """)
    result.stdout.fnmatch_lines(
        ["ERROR test_suite.py::test_that_leaks - Failed: 1 span left open: invoke_a*"]
    )
    assert result.stderr.str() == ""


def test_nobody_is_judged_who_has_not_asked_for_it(suite: Run) -> None:
    """The plugin is in every suite of the environment."""
    result = suite(TWO_TESTS)

    result.assert_outcomes(passed=2)


def test_who_leaves_it_out_by_another_name_is_told_its_own(suite: Run) -> None:
    """What is asked to be off and is on is found by whoever debugs something else."""
    refused = suite(TWO_TESTS, "-p", "no:agenttrace", LEAKS)

    assert refused.ret is pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*no:agenttrace leaves nothing out: say -p no:agenttrace.pytest_plugin"]
    )


def test_a_suite_without_spans_does_not_load_opentelemetrys_sdk(
    pytester: pytest.Pytester,
) -> None:
    """It would pay for it with every run, and get nothing."""
    pytester.makepyfile("""
        import sys

        def test_what_is_loaded(pytestconfig):
            assert pytestconfig.pluginmanager.hasplugin("agenttrace.pytest_plugin")
            heavy = {"opentelemetry", "opentelemetry.sdk", "agenttrace.runtime"}
            assert heavy.isdisjoint(sys.modules)
    """)

    # Of the other plugins of this environment some bring OpenTelemetry themselves.
    result = pytester.runpytest_subprocess(
        "--disable-plugin-autoload", "-p", "agenttrace.pytest_plugin"
    )

    result.assert_outcomes(passed=1)


def test_pytest_compiles_none_of_the_modules_that_threads_import(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In Python 3.11 a suite failed, now and then, with a `SystemError` of `ast`'s."""
    # As pip writes it down: pytest rewrites all that a plugin's distribution has.
    installed = pytester.mkdir("agenttrace_otel-0.dist-info")
    (installed / "METADATA").write_text("Name: agenttrace-otel\nVersion: 0\n")
    (installed / "RECORD").write_text("agenttrace/__init__.py,,\n")
    (installed / "entry_points.txt").write_text(
        "[pytest11]\nagenttrace.pytest_plugin = agenttrace.pytest_plugin\n"
    )
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.delenv("PYTEST_PLUGINS")
    pytester.makepyfile("""
        import sys

        import agenttrace

        def test_by_whom_modules_are_loaded(agenttrace_spans, pytestconfig):
            hook = pytestconfig.pluginmanager.rewrite_hook
            loaded = {
                name
                for name, module in sys.modules.items()
                if name.startswith("agenttrace") and module.__loader__ is hook
            }
            # These come before the plugin can do anything, and before any thread.
            assert "agenttrace" in loaded
            assert loaded <= {
                "agenttrace", "agenttrace.lazy", "agenttrace.pytest_plugin"
            }
            assert "agenttrace.runtime" in sys.modules
    """)

    result = pytester.runpytest_subprocess("-p", "no:randomly")

    result.assert_outcomes(passed=1)


def test_the_setting_is_the_suites_and_the_option_has_the_last_word(suite: Run) -> None:
    """One run can be without it, to see the rest of what fails."""
    ini = "agenttrace_leaks = fail\n"

    set_on = suite(TWO_TESTS, ini=ini)
    set_off = suite(TWO_TESTS, "--agenttrace-leaks=off", ini=ini)

    set_on.assert_outcomes(passed=2, errors=1)
    set_off.assert_outcomes(passed=2)


def test_a_setting_that_cannot_be_meant_is_refused(suite: Run) -> None:
    """Taken for `off`, it would be a check that never fails."""
    in_file = suite(TWO_TESTS, ini="agenttrace_leaks = yes\n")
    on_line = suite(TWO_TESTS, "--agenttrace-leaks=yes")

    assert in_file.ret == on_line.ret == pytest.ExitCode.USAGE_ERROR
    in_file.stderr.fnmatch_lines(
        ["ERROR: agenttrace_leaks = 'yes': must be off, warn or fail"]
    )
    on_line.stderr.fnmatch_lines(
        ["*: error: argument --agenttrace-leaks: invalid choice: 'yes' *"]
    )


def test_a_warning_is_shown_with_the_test_that_it_is_about(suite: Run) -> None:
    """A suite that begins to look for leaks has many, and goes on meanwhile."""
    result = suite(TWO_TESTS, "--agenttrace-leaks=warn")

    result.assert_outcomes(passed=2, warnings=1)
    result.stdout.fnmatch_lines(
        [
            "test_suite.py::test_that_leaks",
            "*LeakedSpanWarning: 1 span left open: invoke_agent triage",
            "*",
            "*  invoke_agent triage (open for * ms)",
            "*    started at test_suite.py:18",
        ]
    )


def test_a_warning_can_be_made_an_error(suite: Run) -> None:
    """Whoever runs with `-W error` means these as well."""
    result = suite(TWO_TESTS, "--agenttrace-leaks=warn", "-Werror")

    result.assert_outcomes(passed=2, errors=1)


def test_a_marker_allows_names_or_numbers_and_nothing_beyond(suite: Run) -> None:
    """A test may be about a span that is open; another one that leaks is found."""
    result = suite(
        """
        allow = pytest.mark.agenttrace_allow_open

        @allow("invoke_agent triage")
        def test_by_name(): leak()

        @allow("invoke_agent *", "execute_tool *")
        def test_by_pattern(): leak(); leak()

        @allow(2)
        def test_by_number(): leak(); leak()

        @allow
        def test_any(): leak()

        @allow
        class TestOfAClass:
            def test_any(self): leak()

        @allow("execute_tool *")
        def test_another_name(): leak()

        @allow(1)
        def test_more_than_that(): leak(); leak()
        """,
        LEAKS,
        "--strict-markers",
    )

    result.assert_outcomes(passed=7, errors=2)
    result.stdout.fnmatch_lines(
        [
            "ERROR *::test_another_name - Failed: 1 span left open: invoke_*",
            "ERROR *::test_more_than_that - Failed: 2 spans left open: *",
        ]
    )


def test_the_marker_that_is_proposed_can_be_copied(suite: Run) -> None:
    """Whatever the name of the span is, the line is Python, and allows it."""
    tests = """
        MARK
        def test_that_leaks():
            block = agenttrace.span('say "hi"\\nthere *')
            block.__enter__()
            kept.append(block)
    """

    told = suite(tests.replace("MARK", ""), LEAKS)
    # Where `CI` is set, pytest says it once more in its summary.
    proposed, *_ = re.findall("^To allow it: (.*)$", told.stdout.str(), re.MULTILINE)
    copied = suite(tests.replace("MARK", proposed), LEAKS)

    told.assert_outcomes(passed=1, errors=1)
    copied.assert_outcomes(passed=1)


@pytest.mark.parametrize("said", ["None", "1.5", "True", "-1", "name='triage'"])
def test_a_marker_that_cannot_be_meant_is_refused_before_anything_leaks(
    suite: Run, said: str
) -> None:
    """Its author is beside it today, and whoever meets the first leak is not."""
    result = suite(
        f"""
        @pytest.mark.agenttrace_allow_open({said})
        def test_that_is_clean(): pass
        """,
        LEAKS,
    )

    result.assert_outcomes(errors=1)
    assert section(result, "ERROR at setup of test_that_is_clean") == (
        f"@pytest.mark.agenttrace_allow_open({said}): must be names of spans or a "
        "number of them"
    )


def test_what_a_wider_fixture_holds_open_is_nobodys_leak(suite: Run) -> None:
    """Until it is torn down: then it has to be closed like everything else."""
    result = suite(
        """
        def opened():
            stream = triage("the weather")
            next(stream)
            return stream

        @pytest.fixture(scope="session")
        def for_good():
            with contextlib.closing(opened()) as stream:
                yield stream

        @pytest.fixture(scope="module")
        def within(for_good):
            with contextlib.closing(opened()) as stream:
                yield stream

        @pytest.fixture(scope="class")
        def forgetful(within):
            leak()

        @pytest.fixture
        def function_wide(within):
            with contextlib.closing(opened()) as stream:
                yield stream

        def test_first(within): pass
        def test_second(function_wide): pass

        class TestThird:
            def test_a(self, forgetful): pass
            def test_b(self, forgetful, function_wide): pass

        def test_last(): pass
        """,
        LEAKS,
    )

    result.assert_outcomes(passed=5, errors=1)
    result.stdout.fnmatch_lines(["ERROR *::TestThird::test_b - Failed: 1 span left *"])


def test_what_a_wider_fixtures_worker_is_at_is_nobodys_leak(suite: Run) -> None:
    """A worker that waits for its next job has begun to in the middle of some test."""
    result = suite(
        """
        import asyncio
        import queue
        import threading

        import pytest_asyncio

        @pytest.fixture(scope="module")
        def jobs():
            waiting, taken = queue.Queue(), queue.Queue()

            def work():
                while True:
                    with agenttrace.span("wait for a job"):
                        job = waiting.get()
                    taken.put(job)
                    if job is None:
                        return

            thread = threading.Thread(target=work)
            thread.start()
            yield waiting, taken
            waiting.put(None)
            thread.join()

        @pytest_asyncio.fixture(loop_scope="module", scope="module")
        async def pump():
            async def work():
                while True:
                    with agenttrace.span("pump"):
                        await asyncio.sleep(0)

            task = asyncio.create_task(work())
            yield task
            task.cancel()
            await asyncio.wait([task])

        def test_of_a_thread(jobs):
            waiting, taken = jobs
            waiting.put("one")
            taken.get()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_of_a_task(pump):
            await asyncio.sleep(0)

        @pytest.mark.asyncio(loop_scope="module")
        async def test_of_a_task_that_leaks(pump, jobs):
            leak()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_that_leaves_a_block(pump, jobs):
            block = agenttrace.span("block")
            block.__enter__()
            kept.append(block)
        """,
        LEAKS,
        "-p",
        "pytest_asyncio.plugin",
    )

    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(
        [
            "ERROR *::test_of_a_task_that_leaks - Failed: 1 span left open: in*",
            "ERROR *::test_that_leaves_a_block - Failed: 1 span left open: block",
        ]
    )


def test_what_a_wider_fixtures_worker_has_begun_by_other_tasks_is_nobodys_leak(
    suite: Run, pytester: pytest.Pytester
) -> None:
    """A server has a task for each request, and both may be of an installed library."""
    library = pytester.mkpydir("site-packages") / "serving.py"
    library.write_text(
        textwrap.dedent("""
            import asyncio
            import agenttrace

            async def handle(taken, is_over):
                with agenttrace.span("handle"):
                    taken.set()
                    await is_over.wait()

            async def serve(requests, is_over):
                handling = set()
                try:
                    while True:
                        with agenttrace.span("wait for a request"):
                            taken = await requests.get()
                        handling.add(asyncio.create_task(handle(taken, is_over)))
                finally:
                    is_over.set()
                    await asyncio.wait(handling)
        """)
    )
    result = suite(
        f"""
        import asyncio
        import sys
        import anyio
        import pytest_asyncio

        sys.path.append({str(library.parent)!r})
        import serving

        async def asked(requests):
            taken = asyncio.Event()
            requests.put_nowait(taken)
            await asyncio.wait_for(taken.wait(), 60)

        @pytest_asyncio.fixture(loop_scope="module", scope="module")
        async def server():
            requests = asyncio.Queue()
            task = asyncio.create_task(serving.serve(requests, asyncio.Event()))
            await asked(requests)
            yield requests
            task.cancel()
            await asyncio.wait([task])

        @pytest.mark.asyncio(loop_scope="module")
        async def test_that_asks(server):
            await asked(server)

        @pytest.mark.asyncio(loop_scope="module")
        async def test_that_leaks(server):
            await asked(server)
            kept.append(agenttrace.background(asyncio.sleep(60), name="own"))
            await asyncio.sleep(0)

        @pytest.mark.asyncio(loop_scope="module")
        async def test_that_is_clean(server):
            await asyncio.sleep(0)

        @pytest.fixture(scope="module")
        def anyio_backend():
            return "asyncio"

        @pytest.fixture(scope="module")
        async def server_of_anyio(anyio_backend):
            requests = asyncio.Queue()
            async with anyio.create_task_group() as group:
                group.start_soon(serving.serve, requests, asyncio.Event())
                await asked(requests)
                yield requests
                group.cancel_scope.cancel()

        @pytest.mark.anyio
        async def test_of_anyio_that_asks(server_of_anyio):
            await asked(server_of_anyio)

        @pytest.mark.anyio
        async def test_of_anyio_that_leaks(server_of_anyio):
            kept.append(agenttrace.background(asyncio.sleep(60), name="own"))
            await asyncio.sleep(0)

        @pytest.mark.anyio
        async def test_of_anyio_that_is_clean(server_of_anyio):
            await asyncio.sleep(0)
        """,
        LEAKS,
    )

    result.assert_outcomes(passed=6, errors=2)
    result.stdout.fnmatch_lines(
        [
            "ERROR *::test_that_leaks - Failed: 1 span left open: own",
            "ERROR *::test_of_anyio_that_leaks - Failed: 1 span left open: own",
        ]
    )


def test_what_a_wider_fixture_leaves_open_is_told_with_its_name(suite: Run) -> None:
    """The test after which it is found has done nothing, and may be another one."""
    result = suite(
        """
        import threading

        @pytest.fixture(scope="module")
        def worker():
            asked, done, is_over = (threading.Event() for _ in range(3))

            def work():
                asked.wait(60)
                block = agenttrace.span("job")
                block.__enter__()
                kept.append(block)
                done.set()
                is_over.wait(60)

            thread = threading.Thread(target=work)
            thread.start()
            yield asked, done
            is_over.set()
            thread.join()

        def test_in_which_it_is_begun(worker):
            asked, done = worker
            asked.set()
            assert done.wait(60)

        def test_that_is_the_last(worker): pass
        """,
        LEAKS,
    )

    result.assert_outcomes(passed=2, errors=1)
    assert section(result, "ERROR at teardown of test_that_is_the_last") == expected("""
        1 span left open by the fixture worker: job

          job (open for ...)
            started at test_suite.py:30
                block.__enter__()
            The fixture worker has begun it, and has been torn down: end it there.
            It is a `with` block that has not been left: wait for the task or thread
            that is inside, or close what it is in: a generator, or an ExitStack.

        To allow it: @pytest.mark.agenttrace_allow_open("job")
    """)


def test_a_thread_of_a_test_is_not_one_of_a_fixtures_that_is_over(suite: Run) -> None:
    """The operating system gives its id to the next one."""
    result = suite(
        """
        import threading

        is_over = threading.Event()

        @pytest.fixture(scope="module")
        def briefly():
            is_enough = threading.Event()
            threads = [threading.Thread(target=is_enough.wait) for _ in range(4)]
            for thread in threads:
                thread.start()
            yield is_enough, threads
            is_over.set()

        def test_that_leaks(briefly):
            is_enough, threads = briefly
            is_enough.set()
            ids = {thread.ident for thread in threads}
            for thread in threads:
                thread.join()
            for _ in range(50):
                is_begun = threading.Event()

                def work():
                    if threading.get_ident() in ids:
                        block = agenttrace.span("of the test")
                        block.__enter__()
                        kept.append(block)
                    is_begun.set()
                    is_over.wait(60)

                threading.Thread(target=work).start()
                assert is_begun.wait(60)
                if kept:
                    return
            pytest.skip("no id was given again")

        def test_that_is_clean(briefly): pass
        """,
        LEAKS,
    )

    if result.parseoutcomes().get("skipped"):
        pytest.skip("no id was given again")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["ERROR *::test_that_leaks - Failed: 1 span left *"])


def test_of_what_stays_open_as_many_may_as_the_marker_says(suite: Run) -> None:
    """A thread that goes on has one as well, and never the same."""
    result = suite(
        """
        import threading

        is_over, taken = threading.Event(), threading.Semaphore(0)

        def work():
            following = agenttrace.span("one")
            following.__enter__()
            while not is_over.wait(0.001):
                before, following = following, agenttrace.span("one")
                following.__enter__()
                before.__exit__(None, None, None)
                taken.release()
            following.__exit__(None, None, None)

        @pytest.mark.agenttrace_allow_open(1)
        def test_that_may():
            threading.Thread(target=work, daemon=True).start()
            for _ in range(3):
                assert taken.acquire(timeout=60)
            leak()

        def test_that_is_clean():
            is_over.set()
        """,
        LEAKS,
    )

    result.assert_outcomes(passed=2)


def test_async_tests_and_fixtures_of_both_plugins_are_judged_alike(suite: Run) -> None:
    """Their loops end in teardown, and what ends with them is no leak."""
    result = suite(
        """
        import asyncio
        import pytest_asyncio

        @agenttrace.agent
        async def attend(question):
            for word in question.split():
                yield word

        @pytest_asyncio.fixture
        async def held():
            with agenttrace.span("fixture"):
                yield

        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def held_long():
            with agenttrace.span("module fixture"):
                yield

        @pytest.fixture(params=["asyncio"])
        def anyio_backend(request):
            return request.param

        @pytest.fixture
        async def held_by_anyio(anyio_backend):
            with agenttrace.span("anyio fixture"):
                yield

        async def ask(*, and_keep):
            stream = attend("the weather")
            await anext(stream)
            if and_keep:
                kept.append(stream)
            else:
                await stream.aclose()

        @pytest.mark.asyncio
        async def test_of_asyncio(held, agenttrace_spans):
            await ask(and_keep=False)
            agenttrace_spans.assert_all_closed()
            assert agenttrace_spans.span("invoke_agent attend").outcome == "abandoned"

        @pytest.mark.asyncio(loop_scope="module")
        async def test_of_asyncio_that_leaks(held_long):
            leak()

        @pytest.mark.anyio
        async def test_of_anyio(held_by_anyio, agenttrace_spans):
            await ask(and_keep=False)
            agenttrace_spans.assert_all_closed()
            assert agenttrace_spans.span("invoke_agent attend").outcome == "abandoned"

        @pytest.mark.anyio
        async def test_of_anyio_that_leaks(held_by_anyio):
            leak()

        @pytest.mark.asyncio
        async def test_whose_loop_ends_what_it_left():
            await ask(and_keep=True)
            task = asyncio.create_task(asyncio.sleep(10))
        """,
        LEAKS,
    )

    result.assert_outcomes(passed=5, errors=2)
    result.stdout.fnmatch_lines(
        [
            "ERROR *::test_of_asyncio_that_leaks - *",
            "ERROR *::test_of_anyio_that_leaks* - *",
        ]
    )


def test_unittest_cases_are_judged_and_can_capture(suite: Run) -> None:
    """Half of the world's suites are written this way."""
    result = suite(
        """
        import unittest
        from agenttrace.testing import capture_spans

        class Case(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.stream = triage("held by the class")
                next(cls.stream)
                cls.addClassCleanup(cls.stream.close)

            @pytest.fixture(autouse=True)
            def _spans(self, agenttrace_spans):
                self.spans = agenttrace_spans

            def test_by_fixture(self):
                list(triage("the weather"))
                assert self.spans.span("invoke_agent triage").items == 2

            def test_by_context(self):
                spans = self.enterContext(capture_spans())
                list(triage("the weather"))
                spans.assert_all_closed()
                spans.assert_tree("invoke_agent triage: items=2")

            def test_that_leaks(self):
                leak()
        """,
        LEAKS,
    )

    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["ERROR *::Case::test_that_leaks - Failed: 1 span *"])


def test_what_a_traced_case_allows_is_allowed_by_the_option_as_well(
    suite: Run,
) -> None:
    """The class has said it once, and whoever reads it takes it for said."""
    result = suite(
        """
        from agenttrace.testing import TracedTestCase

        class TestDesk(TracedTestCase):
            allow_open = ("invoke_agent *",)

            def test_that_is_allowed(self):
                leak()

            def test_that_leaks_another(self):
                kept.append(agenttrace.span("plan"))
                kept[-1].__enter__()
        """,
        LEAKS,
    )

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["E * 1 span left open: plan"])


def test_in_parallel_and_in_any_order_the_same_tests_leak(
    suite: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each worker watches its own process, whatever it is given to run."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.delenv("PYTEST_PLUGINS")
    tests = "\n".join(
        f"    def test_{number}(): {'leak()' if number % 4 == 0 else 'pass'}"
        for number in range(12)
    )

    result = suite(tests, LEAKS, "-n2", "-prandomly")

    result.assert_outcomes(passed=12, errors=3)
    leaked = re.findall(
        r"^ERROR test_suite\.py::(\w+)", result.stdout.str(), re.MULTILINE
    )
    assert sorted(leaked) == ["test_0", "test_4", "test_8"]


def test_a_test_that_has_failed_already_tells_its_leak_beside_that(suite: Run) -> None:
    """Its traceback holds on to what is suspended, so that is no second failure."""
    result = suite(
        """
        def test_that_fails():
            stream = triage("the weather")
            next(stream)
            assert not stream

        @pytest.fixture
        def broken():
            yield
            raise RuntimeError("broken")

        def test_whose_fixture_fails(broken):
            leak()
        """,
        LEAKS,
    )

    result.assert_outcomes(failed=1, passed=1, errors=1)
    assert section(result, "Captured spans left open teardown").startswith(
        "1 span left open: invoke_agent triage\n"
    )
    assert result.stdout.str().count("- Captured spans left open teardown -") == 2
    result.stdout.fnmatch_lines(
        ["ERROR *::test_whose_fixture_fails - RuntimeError: broken"]
    )


def test_an_assertion_points_at_the_line_of_the_test(suite: Run) -> None:
    """The kit's own frames are nothing that a test's author wants to read."""
    result = suite("""
        def test_that_leaks(agenttrace_spans):
            leak()
            agenttrace_spans.assert_all_closed()
    """)

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       agenttrace_spans.assert_all_closed()",
            "E       AssertionError: 1 span still open: invoke_agent triage",
            "E       ",
            "E         invoke_agent triage (open for * ms)",
            "E           started at test_suite.py:18",
            "E               next(stream)",
            "*",
            "test_suite.py:23: AssertionError",
        ]
    )
    result.stdout.no_fnmatch_line("*testing?capture.py*")
    assert result.stderr.str() == ""


def test_doctests_and_parameters_are_tests_like_others(suite: Run) -> None:
    """A fixture of the module is set up again for each parameter."""
    result = suite(
        '''
        @pytest.fixture(scope="module", params=["a", "b"])
        def stream(request):
            with contextlib.closing(triage(request.param)) as stream:
                next(stream)
                yield stream

        def test_one(stream): pass
        def test_two(stream): pass

        def documented():
            """
            >>> leak()
            """
        ''',
        LEAKS,
        "--doctest-modules",
    )

    result.assert_outcomes(passed=5, errors=1)
    result.stdout.fnmatch_lines(["ERROR test_suite.py::test_suite.documented - *"])


def test_a_test_that_is_run_again_is_judged_again(
    suite: Run, pytester: pytest.Pytester
) -> None:
    """Otherwise a suite with reruns has no leaks, whatever it leaves open."""
    pytester.makeconftest("""
        from _pytest.runner import runtestprotocol

        def pytest_runtest_protocol(item, nextitem):
            runtestprotocol(item, log=False, nextitem=nextitem)
            runtestprotocol(item, log=True, nextitem=nextitem)
            return True
    """)

    result = suite(TWO_TESTS, LEAKS)

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["ERROR *::test_that_leaks - Failed: 1 span left *"])


def test_a_test_that_fails_as_expected_and_leaks_is_one_test(suite: Run) -> None:
    """Its leak is no second result: the totals would not be those of the suite."""
    result = suite(
        """
        @pytest.mark.xfail
        def test_by_mark(): leak(); assert False

        def test_by_word(): leak(); pytest.xfail("later")
        """,
        LEAKS,
        "--xfail-tb",
    )

    result.assert_outcomes(xfailed=2)
    assert result.stdout.str().count("- Captured spans left open teardown -") == 2


def test_a_test_is_held_to_what_its_markers_promise(suite: Run) -> None:
    """A limit on what is open at once finds a fan-out that nobody meant."""
    result = suite(
        """
        from agenttrace.testing import ManualClock

        at_most = pytest.mark.agenttrace_max_open

        def nest(depth):
            if depth:
                with agenttrace.span(f"step {depth}"):
                    nest(depth - 1)

        @at_most(2)
        def test_that_keeps_it(): nest(2)

        @at_most(2)
        def test_that_breaks_it(agenttrace_spans): nest(3)

        @pytest.mark.agenttrace_no_stuck
        def test_that_makes_progress():
            with ManualClock() as clock, agenttrace.span("slow", heartbeat_timeout=5):
                clock.advance(4)

        @pytest.mark.agenttrace_no_stuck
        def test_that_makes_none():
            with ManualClock() as clock, agenttrace.span("slow", heartbeat_timeout=5):
                clock.advance(6)

        @at_most("two")
        def test_that_cannot_be_meant(): nest(1)
        """,
        "--strict-markers",
    )

    result.assert_outcomes(passed=4, errors=3)
    assert section(result, "ERROR at teardown of test_that_breaks_it") == expected("""
        3 spans were open at once, and 2 may be: step 3, step 2, step 1

          step 3 (test_suite.py:27)
          step 2 (test_suite.py:27)
          step 1 (test_suite.py:27)
    """)
    stuck = section(result, "ERROR at teardown of test_that_makes_none")
    assert stuck.startswith("the watchdog has ended 1 span: slow\n\n  slow: ")
    assert section(result, "ERROR at setup of test_that_cannot_be_meant") == (
        "@pytest.mark.agenttrace_max_open('two'): must be one number of spans"
    )
