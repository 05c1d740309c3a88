"""`agenttrace run` hands over to a program, which finds all as without us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from agenttrace.cli.group import group
from agenttrace.delivery.store import FILE_NAME, Reader
from agenttrace.launch import program
from agenttrace.settings import state_dir
from tests.cli.given import COMMAND, TIME_LIMIT, environment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="a program takes the place of the command"
)

RUN = (*COMMAND, "run")
LOOKS = """
    import json, os, sys
    from opentelemetry import trace

    with trace.get_tracer("app").start_as_current_span("looking"):
        found = {
            "argv": sys.argv,
            "path": sys.path,
            "name": __name__,
            "file": __file__,
            "spec": getattr(__spec__, "name", None),
            "stdin": sys.stdin.read(),
            "customized": getattr(sys, "customized", None),
            "customize": str(sys.modules.get("sitecustomize")),
            "variables": sorted(os.environ),
        }
    json.dump(found, sys.stdout)
    sys.exit(7)
"""


def ran(
    directory: Path, *command: str, given: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run *command* in *directory* to its end."""
    # On a machine that is busy the usual seconds may not do.
    more = {"AGENTTRACE_FLUSH_TIMEOUT": str(TIME_LIMIT), **more}
    return subprocess.run(
        command,
        cwd=directory,
        env=environment(**more),
        input=given,
        capture_output=True,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )


def written(directory: Path, source: str, name: str = "app.py") -> str:
    """Write *source* to a file and return its name."""
    (directory / name).write_text(dedent(source))
    return name


def path_with(directory: Path) -> str:
    """Return a `PYTHONPATH` that has *directory* before what this one has."""
    return os.pathsep.join(filter(None, [str(directory), os.environ.get("PYTHONPATH")]))


def runs() -> list[tuple[str | None, str | None]]:
    """Return name and service of every run in the store."""
    store = Reader(state_dir() / FILE_NAME)
    return [(run.name, run.service) for run in store.runs(100)]


@pytest.mark.parametrize("words", [("app.py",), ("-m", "app")], ids=" ".join)
def test_a_program_finds_what_it_would_find_without_us(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    """Its own `sitecustomize`, arguments, path, stdin and exit code are its own."""
    written(tmp_path, LOOKS)
    (tmp_path / "customs").mkdir()
    written(
        tmp_path / "customs", "import sys\nsys.customized = True", "sitecustomize.py"
    )
    more = {"PYTHONPATH": path_with(tmp_path / "customs")}

    bare = ran(tmp_path, sys.executable, *words, "-x", "--y=z", given="hi", **more)
    ours = ran(tmp_path, *RUN, *words, "-x", "--y=z", given="hi", **more)

    found: dict[str, Any] = json.loads(ours.stdout)
    expected: dict[str, Any] = json.loads(bare.stdout)
    assert (ours.returncode, ours.stderr) == (bare.returncode, bare.stderr) == (7, "")
    assert set(found.pop("variables")) - set(expected.pop("variables")) == {
        "AGENTTRACE_PROGRAM"
    } | ({"PYTHONPATH"} - set(more))
    assert found == expected
    assert found["customized"] is True
    assert runs() == [("looking", "unknown_service:app")]


def test_what_is_wrong_with_its_own_start_is_told_as_without_us(tmp_path: Path) -> None:
    """The interpreter's own words lead to the file that is meant."""
    written(tmp_path, "raise RuntimeError('theirs')", "sitecustomize.py")
    more = {"PYTHONPATH": path_with(tmp_path)}

    bare = ran(tmp_path, sys.executable, "-c", "pass", **more)
    variables = program.environment({**os.environ, **more}, "app")
    ours = ran(tmp_path, sys.executable, "-c", "pass", **variables)

    assert "RuntimeError: theirs" in bare.stderr
    assert (ours.returncode, ours.stderr) == (bare.returncode, bare.stderr)


def test_signals_of_a_program_mean_what_they_mean_without_us(tmp_path: Path) -> None:
    """Python ignores SIGPIPE, and what it starts in its place would, too."""
    done = ran(tmp_path, *RUN, "sh", "-c", "kill -PIPE $$; echo alive")

    assert (done.returncode, done.stdout) == (-signal.SIGPIPE, "")


def test_where_no_program_can_take_its_place_it_ends_as_the_program_does(
    tmp_path: Path,
) -> None:
    """On Windows the shell would go on, and read the same terminal as the program."""
    source = "import signal, sys; print(signal.getsignal(signal.SIGINT)); sys.exit(7)"
    chosen = program.Program(sys.executable, (sys.executable, "-c", source), "app")

    done = ran(
        tmp_path,
        sys.executable,
        "-c",
        "import os; from agenttrace.launch import program\n"
        f"program.stand_by(program.{chosen!r}, os.environ)",
    )

    assert done.returncode == 7
    assert "default_int_handler" in done.stdout  # a Ctrl-C is the program's


def test_an_application_that_configures_itself_wins(tmp_path: Path) -> None:
    """It knows better, and everything is told once, as it says."""
    app = written(
        tmp_path,
        """
        import agenttrace
        with agenttrace.span("before"):
            agenttrace.configure(service_name="mine", max_open_spans=77)
        agenttrace.instrument()
        with agenttrace.span("after"):
            pass
        print(agenttrace.runtime.current().settings.max_open_spans)
        """,
    )

    done = ran(tmp_path, *RUN, "--service-name", "given", app)

    assert (done.returncode, done.stdout, done.stderr) == (0, "77\n", "")
    assert sorted(runs()) == [("after", "mine"), ("before", "mine")]


def test_a_provider_that_the_application_sets_is_the_global_one(tmp_path: Path) -> None:
    """Its exporters would see nothing more: we have come first without being asked."""
    app = written(
        tmp_path,
        """
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
            InMemorySpanExporter,
        )

        mine, seen = TracerProvider(), InMemorySpanExporter()
        mine.add_span_processor(SimpleSpanProcessor(seen))
        trace.set_tracer_provider(mine)
        assert trace.get_tracer_provider() is mine
        trace.set_tracer_provider(TracerProvider())  # is refused, as ever
        assert trace.get_tracer_provider() is mine

        with trace.get_tracer("app").start_as_current_span("theirs"):
            pass
        import agenttrace
        with agenttrace.span("ours"):
            pass
        for span in seen.get_finished_spans():
            print(span.name, span.attributes["agenttrace.outcome"])
        print(agenttrace.runtime.current().status().mode)
        """,
    )

    done = ran(tmp_path, *RUN, app)

    assert (done.returncode, done.stdout) == (0, "theirs ok\nours ok\nattached\n")
    assert done.stderr == "Overriding of current TracerProvider is not allowed\n"
    assert runs() == []


def test_options_are_the_variables_that_they_stand_for(tmp_path: Path) -> None:
    """The program's own children are to go by them as well."""
    done = ran(
        tmp_path,
        *(*RUN, "--service-name", "s", "--endpoint", "http://127.0.0.1:9"),
        *("--capture-content", "--on-stuck", "warn", "--state-dir", "here"),
        *("--no-instrument", "openai", "--no-instrument", "threading", "sh", "-c"),
        'echo "$AGENTTRACE_SERVICE_NAME $OTEL_EXPORTER_OTLP_ENDPOINT '
        "$OTEL_EXPORTER_OTLP_TRACES_ENDPOINT- $AGENTTRACE_CAPTURE_CONTENT "
        '$AGENTTRACE_ON_STUCK $AGENTTRACE_STATE_DIR $AGENTTRACE_NO_INSTRUMENT"',
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://127.0.0.1:10",
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"s http://127.0.0.1:9 - true warn {tmp_path / 'here'} openai,threading\n"
    )


def test_a_library_that_is_to_be_left_alone_is(tmp_path: Path) -> None:
    """Whoever keeps another instrumentation of it would have two spans of a call."""
    app = written(
        tmp_path,
        """
        import concurrent.futures.thread
        print(hasattr(concurrent.futures.ThreadPoolExecutor.submit, "__wrapped__"))
        """,
    )

    both = [
        ran(tmp_path, *RUN, app).stdout,
        ran(tmp_path, *RUN, "--no-instrument", "threading", app).stdout,
    ]

    assert both == ["True\n", "False\n"]


def test_a_wrong_name_of_a_library_is_told_and_the_others_hold(tmp_path: Path) -> None:
    """A worker's own variable has not been looked at, and nobody else will say."""
    source = "from concurrent.futures import ThreadPoolExecutor as pool\nimport openai"
    shown = "print([hasattr(it, '__wrapped__') for it in (pool.submit, submit)])"
    app = written(
        tmp_path,
        f"{source}\nsubmit = openai.OpenAI.request\n{shown}",
    )
    variables = {**os.environ, "AGENTTRACE_NO_INSTRUMENT": "opnai,threading,x"}

    done = ran(tmp_path, sys.executable, app, **program.environment(variables, "app"))

    assert done.stdout == "[False, True]\n"
    assert done.stderr == (
        "agenttrace: AGENTTRACE_NO_INSTRUMENT: there is no instrumentation for "
        "'opnai', 'x'; the other names hold\n"
    )


def test_an_interpreter_without_agenttrace_goes_on_with_one_line(
    tmp_path: Path,
) -> None:
    """A program may start tools of other environments."""
    venv.create(tmp_path / "other", symlinks=True)
    python = str(tmp_path / "other/bin/python")
    variables = program.environment({"PYTHONPATH": ""}, "app")

    done = ran(tmp_path, python, "-c", "print(1)", **variables)

    assert (done.returncode, done.stdout) == (0, "1\n")
    assert done.stderr.count("\n") == 1
    assert f"agenttrace: this process is not traced: {python} has no" in done.stderr


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"AGENTTRACE_ON_STUCK": "no"},
            "AGENTTRACE_ON_STUCK='no': must be off, observe, warn, fail or cancel",
        ),
        ({"AGENTTRACE_ON_STUCK": "no", "AGENTTRACE_DISABLED": "1"}, ""),
    ],
    ids=["wrong", "disabled"],
)
def test_an_application_starts_whatever_its_settings_are(
    tmp_path: Path, variables: dict[str, str], told: str
) -> None:
    """A worker may be given other ones than `run` has looked at."""
    more = program.environment({**os.environ, **variables}, "app")

    done = ran(tmp_path, sys.executable, "-c", "print(1)", **more)

    line = f"agenttrace: this process is not traced: {told}\n" if told else ""
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", line)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nothing"], 127, "no program 'nothing' on PATH, and no such file; activate"),
        (["-m", "nothing.at.all"], 127, "no module 'nothing' in "),
        (["-m", ""], 127, "no module '' in "),
        (["./file"], 126, "'./file' is neither Python source (.py) nor executable; ch"),
        (["./folder"], 126, "'./folder' is a directory without a __main__.py; name"),
        (["./script"], 126, "the interpreter in its first line is not there"),
        (["./text"], 126, "cannot be run: Exec format error; put its interpreter be"),
        (["--no-instrument", "x", "true"], 2, "there is no instrumentation for 'x'"),
        (["--endpoint", "", "true"], 2, "--endpoint is empty: give a URL, or leave"),
        (["--on-stuck", "x", "true"], 2, "Invalid value for '--on-stuck'"),
        (["--state-dir", "~nobody-of-that-name", "true"], 2, "must be a directory"),
        ([], 2, "Missing argument 'APP'"),
    ],
)
def test_what_cannot_be_run_is_told_with_the_remedy(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    told: str,
) -> None:
    """Exit codes are those of shells, so that scripts need not know us."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    written(tmp_path, "hello", "file")
    for name, source in (("script", "#!/nowhere/python\n"), ("text", "hello")):
        (tmp_path / written(tmp_path, source, name)).chmod(0o700)

    before = [signal.getsignal(number) for number in signal.valid_signals()]
    done = CliRunner().invoke(group, ["run", *arguments])

    assert done.exit_code == code
    assert told in done.output
    assert "Traceback" not in done.output
    # Else whoever goes on dies of the first pipe that nobody reads from any more.
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before


@pytest.mark.parametrize(
    ("words", "letter"),
    [
        (("python3", "-I", "app.py"), "I"),
        (("/usr/bin/python3.12", "-W", "error", "-BES", "app.py"), "E"),
        (("python", "-X", "dev", "-S", "-m", "app"), "S"),
        (("python", "-Xdev", "-m", "app", "-I"), None),
        (("python", "app.py", "-I"), None),
        (("python", "-c", "pass", "-S"), None),
        (("python", "-Werror", "--check-hash-based-pycs", "never", "-"), None),
        (("python",), None),
        (("isolated",), "I"),
        (("plain",), None),
        (("sh", "-I"), None),
    ],
)
def test_a_python_that_never_comes_to_us_is_known(
    tmp_path: Path, words: tuple[str, ...], letter: str | None
) -> None:
    """Nothing of ours runs in it, so nothing of ours could say so later."""
    written(tmp_path, "#!/usr/bin/env -S python3 -I\n", "isolated")
    written(tmp_path, "#!/usr/bin/python3\n", "plain")
    chosen = program.Program(str(tmp_path / words[0]), words, words[0])

    why = program.deafness(chosen)

    assert why is None if letter is None else f"-{letter} " in (why or "")


@pytest.mark.parametrize("theirs", ["", "a", os.pathsep.join(["a", "", "b"])])
def test_a_path_keeps_its_entries_and_has_ours_once(theirs: str) -> None:
    """An empty entry is the current directory; an empty path is none."""
    once = program.environment({"PYTHONPATH": theirs}, "app")["PYTHONPATH"]
    twice = program.environment({"PYTHONPATH": once}, "app")["PYTHONPATH"]

    expected = [program.STARTUP, *(theirs.split(os.pathsep) if theirs else [])]
    assert once.split(os.pathsep) == expected
    assert twice == once
