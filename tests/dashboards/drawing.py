"""Draws the panels of a dashboard in its own grid, with matplotlib.

It knows what a panel says of itself (kind, place, unit, thresholds, stacking, and what
it says where there is nothing) and what its queries have returned; it asks nobody.
"""

# matplotlib's keyword arguments have no types.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

WIDTH, UNIT, GAP, DPI = 1200, 27, 8, 100
"""Of a picture, of a row of the grid, and between two panels, in pixels."""
COLUMNS = 24
HEAD, FOOT = 44, 26
MOST_NAMED = 5
"""Series that the legend of a panel names."""
COLOURS = (
    *("#3274d9", "#e0752d", "#37872d", "#8f3bb8", "#c4162a", "#0f8a8a"),
    *("#b8860b", "#5a6270", "#d6609e", "#6d8f1f"),
)
NAMED = {"red": "#c4162a", "orange": "#d9730d", "green": "#2f7d32"}
BACK, PANEL, LINE, TEXT, DIM = "#eef0f3", "#ffffff", "#d8dce2", "#20242b", "#626a76"


@dataclass(frozen=True)
class Answer:
    """One series that a query returned.

    Args:
        name: By the panel's legend.
        seconds: When, from the left edge.
        values: What it was.
    """

    name: str
    seconds: Sequence[float]
    values: Sequence[float]


def draw(
    path: Path,
    title: str,
    panels: Sequence[tuple[dict[str, Any], Sequence[Answer]]],
    shown: float,
    note: str,
) -> None:
    """Draw *panels* with what their queries returned into a PNG file.

    Args:
        path: Of the file.
        title: Of the dashboard.
        panels: As the dashboard has them.
        shown: Seconds from the left edge to the right one.
        note: What stands below.
    """
    rows = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each, _ in panels)
    height = HEAD + rows * UNIT + FOOT
    figure = Figure((WIDTH / DPI, height / DPI), DPI, facecolor=BACK)
    sheet = Sheet(figure, height)
    sheet.text(GAP * 1.5, HEAD / 2, title, size=12, weight="bold")
    sheet.text(GAP * 1.5, height - FOOT / 2, note, size=7.5, colour=DIM)
    for panel, answers in panels:
        place = panel["gridPos"]
        left = place["x"] * (WIDTH - GAP) / COLUMNS + GAP
        top = HEAD + place["y"] * UNIT
        box = (
            left,
            top,
            place["w"] * (WIDTH - GAP) / COLUMNS - GAP,
            place["h"] * UNIT - GAP,
        )
        sheet.panel(panel, box, answers, shown)
    figure.savefig(path)
    # A palette is enough: there are few colours, and their edges.
    with Image.open(path) as picture:
        few = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, 3)
        few.save(path, optimize=True)


class Sheet:
    """A figure that is measured in pixels from its upper left corner.

    Args:
        figure: It.
        height: In pixels.
    """

    def __init__(self, figure: Figure, height: float) -> None:
        self._figure = figure
        self._height = height

    def text(  # noqa: PLR0913 - what a text has
        self,
        x: float,
        y: float,
        said: str,
        *,
        size: float,
        weight: str = "normal",
        colour: str = TEXT,
        across: str = "left",
    ) -> None:
        """Write a line, with its middle at *y*."""
        self._figure.text(
            x / WIDTH,
            1 - y / self._height,
            said,
            fontsize=size,
            fontweight=weight,
            color=colour,
            ha=across,
            va="center",
            parse_math=False,
        )

    def panel(
        self,
        panel: dict[str, Any],
        box: tuple[float, float, float, float],
        answers: Sequence[Answer],
        shown: float,
    ) -> None:
        """Draw a panel into *box*: left, top, width and height."""
        left, top, width, height = box
        self._figure.add_artist(
            FancyBboxPatch(
                (left / WIDTH, 1 - (top + height) / self._height),
                width / WIDTH,
                height / self._height,
                boxstyle="square,pad=0",
                facecolor=PANEL,
                edgecolor=LINE,
                linewidth=0.8,
                zorder=-1,  # below the axes
            )
        )
        self.text(left + 10, top + 14, panel["title"], size=8, weight="bold")
        known = panel["fieldConfig"]["defaults"]
        if not answers:
            middle = left + width / 2
            said: str = known["noValue"]
            self.text(
                middle, top + height / 2, said, size=8, colour=DIM, across="center"
            )
        elif panel["type"] == "stat":
            value = answers[0].values[-1]
            self.text(
                left + width / 2,
                top + height / 2 + 8,
                in_words(value, known["unit"]),
                size=21,
                weight="bold",
                colour=colour_of(value, known.get("thresholds", {}).get("steps", ())),
                across="center",
            )
        else:
            self._lines(panel, box, answers, shown)

    def _lines(
        self,
        panel: dict[str, Any],
        box: tuple[float, float, float, float],
        answers: Sequence[Answer],
        shown: float,
    ) -> None:
        left, top, width, height = box
        known = panel["fieldConfig"]["defaults"]
        unit: str = known["unit"]
        # What is largest is named first, and drawn in front; limits come last.
        ranked = sorted(
            answers,
            key=lambda each: (_is_limit(each), -max(_real(each.values), default=0)),
        )
        named = ranked[:MOST_NAMED]
        below = 15 * (len(named) + (len(ranked) > len(named))) + 24
        axes = self._figure.add_axes(
            (
                (left + 46) / WIDTH,
                1 - (top + height - below) / self._height,
                (width - 60) / WIDTH,
                (height - below - 32) / self._height,
            )
        )
        _arrange(axes, unit, shown)
        colours = [COLOURS[at % len(COLOURS)] for at in range(len(ranked))]
        if known["custom"]["stacking"]["mode"] == "normal":
            every = sorted({at for each in ranked for at in each.seconds})
            at_times = [dict(zip(x.seconds, x.values, strict=True)) for x in ranked]
            stacked = [[_or_0(x.get(at, 0)) for at in every] for x in at_times]
            axes.stackplot(every, stacked, colors=colours, alpha=0.55)
        else:
            for each, colour in reversed(list(zip(ranked, colours, strict=True))):
                axes.plot(
                    each.seconds,
                    each.values,
                    color=DIM if _is_limit(each) else colour,
                    linestyle="--" if _is_limit(each) else "-",
                    linewidth=1.4,
                )
        axes.set_ylim(bottom=0)
        if axes.get_ylim()[1] < 1e-9:
            axes.set_ylim(top=1)
        for number, (each, colour) in enumerate(zip(named, colours, strict=False)):
            y = top + height - below + 32 + 15 * number
            last, most = each.values[-1], max(_real(each.values), default=math.nan)
            self.text(left + 12, y, "\u25ac", size=7, colour=colour)
            self.text(left + 26, y, each.name or "value", size=7.5)
            told = f"last {in_words(last, unit)}   max {in_words(most, unit)}"
            right = left + width - 14
            self.text(right, y, told, size=7.5, colour=DIM, across="right")
        if len(ranked) > len(named):
            y = top + height - below + 32 + 15 * len(named)
            more = f"and {len(ranked) - len(named)} more"
            self.text(left + 26, y, more, size=7.5, colour=DIM)


def _arrange(axes: Axes, unit: str, shown: float) -> None:
    axes.set_facecolor(PANEL)
    axes.set_xlim(0, shown)
    axes.grid(visible=True, color=LINE, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=7, length=0, colors=DIM)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_clock))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=unit == "none"))

    def told(at: float, _: object) -> str:
        return in_words(at, unit)

    axes.yaxis.set_major_formatter(FuncFormatter(told))


def _clock(at: float, _: object) -> str:
    return f"{int(at) // 60}:{int(at) % 60:02}"


def _is_limit(answer: Answer) -> bool:
    return answer.name.startswith("limit of")


def _real(values: Sequence[float]) -> list[float]:
    return [each for each in values if math.isfinite(each)]


def _or_0(value: float) -> float:
    return value if math.isfinite(value) else 0


def in_words(value: float, unit: str) -> str:
    """Return *value* as a panel with *unit* says it.

    >>> in_words(0.9734, "percentunit"), in_words(0.25, "s"), in_words(12.0, "none")
    ('97.3 %', '250 ms', '12')
    """
    if not math.isfinite(value):
        return "-"
    if unit == "percentunit":
        return f"{value:.1%}".replace("%", " %")
    if unit == "s":
        return f"{value:.3g} s" if value >= 1 or not value else f"{value * 1e3:.3g} ms"
    return f"{value:,.0f}" if value >= 100 else f"{round(value, 1):g}"


def colour_of(value: float, steps: Sequence[dict[str, Any]]) -> str:
    """Return the colour that thresholds give *value*."""
    reached = [
        each for each in steps if each["value"] is None or value >= each["value"]
    ]
    return NAMED[reached[-1]["color"]] if reached else TEXT
