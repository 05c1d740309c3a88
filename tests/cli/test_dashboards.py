"""Dashboards and rules ask for what there is, and are written with care."""

from __future__ import annotations

import itertools
import json
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from agenttrace import dashboards
from agenttrace.cli.group import group
from agenttrace.semconv.metrics import MEASURES, METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOARDS = [name for name in dashboards.FILES if name.endswith(".json")]
RULES = [name for name in dashboards.FILES if name.endswith(".yml")]
UNITS = {"s": "_seconds", "By": "_bytes"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["dashboards", *map(str, arguments)])


def names_in_prometheus() -> Iterator[str]:
    """Return the names of all series, by Prometheus's own rules."""
    kinds = {name: (kind, unit) for name, kind, unit, *_ in METRICS}
    kinds |= {name: (kind, unit) for name, (kind, unit, *_) in MEASURES.items()}
    for name, (kind, unit) in kinds.items():
        base = name.replace(".", "_") + UNITS.get(unit, "")
        if kind == "counter":
            yield f"{base}_total"
        elif kind == "histogram":
            yield from (f"{base}_{part}" for part in ("bucket", "count", "sum"))
        else:
            yield base


def labels() -> set[str]:
    """Return the labels that attributes become."""
    keys = itertools.chain.from_iterable(each[2] for each in MEASURES.values())
    return {key.replace(".", "_") for key in keys}


def board_of(name: str) -> Any:  # noqa: ANN401 - JSON
    return json.loads(dashboards.content_of(name))


def asked_for(text: str) -> set[str]:
    return set(re.findall(r"\b(?:agenttrace|gen_ai)_\w+", text))


def test_the_files_are_written_and_named(tmp_path: Path) -> None:
    """Whoever runs it again, to see whether they are current, hears the same."""
    first = run(tmp_path / "new")
    again = run(tmp_path / "new", "--json")

    assert (first.exit_code, again.exit_code) == (0, 0)
    paths = first.output.splitlines()
    assert paths == [str(tmp_path / "new" / name) for name in dashboards.FILES]
    assert json.loads(again.output) == {"files": paths}
    for name in dashboards.FILES:
        said = (tmp_path / "new" / name).read_bytes()
        assert said == dashboards.content_of(name)


def test_a_file_that_somebody_has_changed_is_left_alone(tmp_path: Path) -> None:
    """A dashboard that was adapted is work, and half an update is worse than none."""
    changed = tmp_path / dashboards.FILES[-1]
    changed.parent.mkdir()
    changed.write_text("ours")

    refused = run(tmp_path)

    assert refused.exit_code == 1
    assert str(changed) in refused.output
    assert "--force" in refused.output
    assert changed.read_text() == "ours"
    assert not (tmp_path / dashboards.FILES[0]).exists()
    assert run(tmp_path, "--force").exit_code == 0
    assert changed.read_bytes() == dashboards.content_of(dashboards.FILES[-1])


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    """A path that is mistyped is the usual mistake."""
    (tmp_path / "file").write_text("")

    refused = run(tmp_path / "file" / "below")

    assert refused.exit_code == 1
    assert refused.output.startswith("Error: ")
    assert len(refused.output.splitlines()) == 1


def test_every_file_that_there_is_is_written() -> None:
    """One that is forgotten in the list is in the wheel, and nobody gets it."""
    home = resources.files("agenttrace.dashboards")
    there = {
        f"{folder}/{each.name}"
        for folder in ("grafana", "prometheus")
        for each in home.joinpath(folder).iterdir()
    }

    assert there == set(dashboards.FILES)


@pytest.mark.parametrize("name", [*BOARDS, *RULES])
def test_only_metrics_that_there_are_are_asked_for(name: str) -> None:
    """A panel on a name that was changed is empty for ever, and an alert silent."""
    asked = asked_for(dashboards.content_of(name).decode())
    recorded = set(
        re.findall(r"job:(agenttrace\w+)", dashboards.content_of(name).decode())
    )

    assert asked - recorded <= {*names_in_prometheus(), *labels()}


def test_what_makes_sure_of_that_finds_a_name_that_is_wrong() -> None:
    """Else it would hold no line."""
    asked = asked_for('sum(agenttrace_spans_opened{gen_ai_agent="a"})')

    assert asked == {"agenttrace_spans_opened", "gen_ai_agent"}
    assert asked.isdisjoint({*names_in_prometheus(), *labels()})


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_fits_any_grafana(name: str) -> None:
    """No data source, host or panel id of whoever made it is in there."""
    board = board_of(name)
    sources = {
        each["name"]: each["query"]
        for each in board["templating"]["list"]
        if each["type"] == "datasource"
    }
    panels = board["panels"]

    assert board["uid"] == name.rpartition("/")[2].removesuffix(".json")
    assert "id" not in board
    assert len({each["id"] for each in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        if panel["type"] == "text":
            continue
        source = panel["datasource"]
        assert sources[source["uid"].strip("${}")] == source["type"]
        assert panel["targets"]
        assert panel["description"]
    assert "http://" not in json.dumps(board)


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_lie_on_each_other(name: str) -> None:
    """Grafana would move them, and each at its own discretion."""
    taken: set[tuple[int, int]] = set()
    for panel in board_of(name)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = set(
            itertools.product(
                range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
            )
        )
        assert not cells & taken
        taken |= cells


@pytest.mark.parametrize("name", BOARDS)
def test_a_panel_without_data_says_why(name: str) -> None:
    """Most panels of hangs are empty on a good day."""
    for panel in board_of(name)["panels"]:
        if panel["type"] in {"stat", "timeseries", "table"}:
            assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]
