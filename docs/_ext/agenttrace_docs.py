"""Directives that make reference pages from the source instead of retyping it.

    ```{public} configure instrument
    ```

documents those public names of `agenttrace`, each as what it is (of another module
with the option `:of: agenttrace.testing`), and

    ```{names} agenttrace.
    ```

tables the names in `agenttrace.semconv` that begin like this, with their docstrings.

    ```{metrics}
    ```

tables the metrics of `agenttrace.semconv.metrics.METRICS`: name, instrument, unit,
meaning, and where the status has the same number.

    ```{measures}
    ```

tables those of its `MEASURES`: name, instrument, unit, attributes and meaning.

    ```{settings}
    ```

tables the fields of `agenttrace.settings.Settings`: argument, default, meaning.

    ```{help} tree
    ```

shows what `agenttrace tree --help` prints; without an argument, `agenttrace --help`.

    ```{format} agenttrace.journal.format
    ```

shows the description of a file's bytes that the module which reads and writes them
begins with, without its first paragraph.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, is_typeddict

import click
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

from agenttrace import settings
from agenttrace.cli.group import group
from agenttrace.semconv import metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


_INSTRUMENTS: Final = {"counter": "counter", "updowncounter": "up-down counter"}
_COLUMNS: Final = 78
"""How wide click makes a help text in a terminal of 80 columns."""


class Public(SphinxDirective):
    """Documents public names by the autodoc directive for what each of them is."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar[dict[str, Callable[[str], Any]] | None] = {
        "of": directives.unchanged_required
    }

    def run(self) -> list[nodes.Node]:
        """Return the documentation of every name in the arguments.

        Raises:
            AttributeError: The module has no such name.
        """
        module: str = self.options.get("of", "agenttrace")
        home = importlib.import_module(module)
        lines = ["````{eval-rst}"]
        for name in self.arguments[0].split():
            lines += [*_autodoc(f"{module}.{name}", getattr(home, name)), ""]
        return self.parse_text_to_nodes("\n".join([*lines, "````"]))


class Names(SphinxDirective):
    """Tables names of attributes, events and spans with what their docstrings say."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return a table of the names that begin with the argument."""
        source = Path(inspect.getfile(importlib.import_module("agenttrace.semconv")))
        self.env.note_dependency(str(source))
        found = {
            name: meaning
            for name, meaning in _constants(source.read_text())
            if name.startswith(self.arguments[0])
        }
        rows = ["| name | meaning |", "|---|---|"]
        rows += [f"| `{name}` | {meaning} |" for name, meaning in found.items()]
        if not any(found.values()):
            rows = [f"- `{name}`" for name in found]
        return self.parse_text_to_nodes("\n".join(rows))


class Metrics(SphinxDirective):
    """Tables every metric that is reported."""

    def run(self) -> list[nodes.Node]:
        """Return a table of all metrics in the order of their declaration."""
        self.env.note_dependency(inspect.getfile(metrics))
        rows = [
            "| metric | instrument | unit | meaning | in the status |",
            "|---|---|---|---|---|",
        ]
        rows += [
            f"| `{name}` | {_INSTRUMENTS[kind]} | `{unit}` | {meaning} | `{where}` |"
            for name, kind, unit, where, meaning in metrics.METRICS
        ]
        return self.parse_text_to_nodes("\n".join(rows))


class Measures(SphinxDirective):
    """Tables every metric that is made of spans."""

    def run(self) -> list[nodes.Node]:
        """Return a table of all of them in the order of their declaration."""
        self.env.note_dependency(inspect.getfile(metrics))
        rows = [
            "| metric | instrument | unit | attributes | meaning |",
            "|---|---|---|---|---|",
        ]
        for name, (kind, unit, keys, _, meaning) in metrics.MEASURES.items():
            told = ", ".join(f"`{key}`" for key in keys)
            shown = _INSTRUMENTS.get(kind, kind)
            rows.append(f"| `{name}` | {shown} | `{unit}` | {told} | {meaning} |")
        return self.parse_text_to_nodes("\n".join(rows))


class SettingsTable(SphinxDirective):
    """Tables every setting that is resolved from arguments and environment."""

    def run(self) -> list[nodes.Node]:
        """Return a table of all settings in the order of their declaration."""
        self.env.note_dependency(inspect.getfile(settings))
        rows = ["| argument | default | meaning |", "|---|---|---|"]
        rows += [
            f"| `{each.name}` | {_default(each)} | {_meaning(each)} |"
            for each in settings.DESCRIBED
        ]
        return self.parse_text_to_nodes("\n".join(rows))


class Help(SphinxDirective):
    """Shows the help of a command as it is printed in a terminal."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the command and its help as one block.

        Raises:
            LookupError: There is no such command.
        """
        context = click.Context(
            group,
            info_name="agenttrace",
            terminal_width=_COLUMNS,
            **group.context_settings,
        )
        if self.arguments:
            name: str = self.arguments[0]
            command = group.get_command(context, name)
            if command is None:
                message = f"there is no command {name!r}"
                raise LookupError(message)
            context = click.Context(command, info_name=name, parent=context)
        help_text = context.get_help()
        lines = [f"$ {context.command_path} --help", *help_text.splitlines()]
        return self.parse_text_to_nodes("\n".join(["```text", *lines, "```"]))


class Format(SphinxDirective):
    """Shows the docstring of a module that owns a format, which is its description."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the docstring but its first paragraph.

        Raises:
            LookupError: The module has no docstring.
        """
        module = importlib.import_module(self.arguments[0])
        self.env.note_dependency(inspect.getfile(module))
        _, _, description = (inspect.getdoc(module) or "").partition("\n\n")
        if not description:
            message = f"{self.arguments[0]} does not say what its bytes are"
            raise LookupError(message)
        lines = ["````{eval-rst}", ".. default-role:: literal", "", description]
        return self.parse_text_to_nodes("\n".join([*lines, "````"]))


def _meaning(setting: settings.Setting) -> str:
    meaning = setting.meaning
    # Neither a function nor a mapping of any values can stand in a variable.
    if not setting.has_variable:
        return f"{meaning} It has no variable."
    others = ", ".join(f"`{name}`" for name in setting.variables)
    return f"{meaning} After its own variable, {others} counts." if others else meaning


def _default(setting: settings.Setting) -> str:
    if setting.default is None or callable(setting.default):
        return ""  # computed, or said on the page
    match setting.default:
        case bool() as switch:
            return str(switch).lower()
        case int() as size if setting.name.endswith("_bytes"):
            return f"{size // settings.MEBIBYTE} MiB"
        case int() as number:
            return f"{number:,}"
        case float() as seconds:
            return f"{seconds:g}"
        case other:
            return str(other)


def _autodoc(name: str, what: object) -> list[str]:
    if is_typeddict(what):
        # Sphinx asks it for a signature, and fails: it has none that anybody calls.
        return [f".. autoclass:: {name}()"]
    if inspect.isclass(what):
        kind = "exception" if issubclass(what, BaseException) else "class"
        return [f".. auto{kind}:: {name}", "   :members:"]
    kind = "function" if inspect.isroutine(what) else "data"
    # A table is told by what it holds, not by how that would be typed.
    options = ["   :no-value:"] if isinstance(what, Mapping) else []
    return [f".. auto{kind}:: {name}", *options]


def _without_signature(
    _app: Sphinx,
    what: str,
    _name: str,
    documented: object,
    _options: object,
    _signature: str | None,
    _returned: str | None,
) -> tuple[str, None] | None:
    """Leave out the signature of a class that says nothing of its arguments.

    Nobody but agenttrace makes one.
    """
    is_ours_to_make = "Args:" not in (inspect.getdoc(documented) or "")
    return ("", None) if what == "class" and is_ours_to_make else None


def _skip_alias(
    _app: Sphinx,
    _what: str,
    _name: str,
    member: object,
    _skip: bool,  # noqa: FBT001 - autodoc's event
    _options: object,
) -> bool | None:
    """Leave out the fields of a named tuple, which its docstring has already."""
    return True if str(member.__doc__).startswith("Alias for field number") else None


def _constants(source: str) -> Iterator[tuple[str, str]]:
    # Imported constants have no docstrings, so they are read where they are written.
    body = ast.parse(source).body
    for statement, after in itertools.pairwise([*body, ast.Pass()]):
        match statement:
            case ast.AnnAssign(value=ast.Constant(value=str(name))):
                match after:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        yield name, " ".join(text.split())
                    case _:
                        yield name, ""
            case _:
                pass


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directives."""
    app.add_directive("public", Public)
    app.add_directive("names", Names)
    app.add_directive("metrics", Metrics)
    app.add_directive("measures", Measures)
    app.add_directive("settings", SettingsTable)
    app.add_directive("help", Help)
    app.add_directive("format", Format)
    app.connect("autodoc-process-signature", _without_signature)
    app.connect("autodoc-skip-member", _skip_alias)
    return {"parallel_read_safe": True}
