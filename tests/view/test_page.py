"""What a person sees and does on the page, in a real browser."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.view import scenes

if TYPE_CHECKING:
    from pathlib import Path

    from tests.view.browser import Page
    from tests.view.conftest import Serving

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has no locks that a crash frees"
)
FOCUSED = "document.activeElement.id"
CURRENT = "document.querySelector('#{} .current')?.getAttribute('aria-label')"
ANSWERS = (
    "performance.getEntriesByType('resource')"
    ".filter((each) => /runs[/].*have=[1-9]/.test(each.name))"
    ".map((each) => each.encodedBodySize)"
)
"""Sizes of the answers to a page that has something of the run already."""
HOSTILE = """
    import sys
    import agenttrace

    name = "<img src=x onerror='window.hurt = 1'>"
    runtime = agenttrace.configure(state_dir=sys.argv[1], service_name="<b>shop</b>")
    with agenttrace.span(name, attributes={name: "<script>window.hurt = 1</script>"}):
        pass
    runtime.flush()
    print("ready", flush=True)
"""
CROWDED = """
    import sys
    import agenttrace

    runtime = agenttrace.configure(state_dir=sys.argv[1])
    for _ in range(501):
        with agenttrace.span("one of many"):
            pass
    runtime.flush()
    print("ready", flush=True)
"""


def shows(page: Page, selector: str, text: str) -> None:
    page.until_text(selector, text)


def test_an_empty_page_says_what_to_do_and_fills_by_itself(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """Runs come in as they begin, and turn into what they came to, without a reload."""
    with serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#no-runs", "agenttrace.configure()")
        with scenes.playing(tmp_path, scenes.BUSY):
            shows(page, "#status", "7 runs, 1 running")
            first = page.texts("#run-list .row")[0]
            page.press("j", "Enter")
            shows(page, "#run-facts", "running")
            shows(page, "#steps", "idle")
            page.until("document.querySelectorAll('#steps .bar.running').length == 3")
            width = "parseFloat(document.querySelectorAll('.bar.ok')[0].style.width)"
            before = page.evaluate(width)
            # What has ended takes less and less of a line that goes on.
            page.until(f"{width} < {before} / 1.2")
        shows(page, "#run-facts", "ok")
        shows(page, "#status", "7 runs")
        bars = page.evaluate("document.querySelectorAll('.bar.running').length")

    assert first.startswith("invoke_agent triage, running, ")
    assert bars == 0
    assert page.complaints == []
    assert all(
        each.startswith((server.address.partition("#")[0], "about:", "data:"))
        for each in page.requests
    )


def test_keys_lead_from_the_list_to_where_a_step_hangs_and_back(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """No mouse is needed to find what is stuck, and what it waits for."""
    with scenes.playing(tmp_path, scenes.STUCK), serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#run-list", "1 step stuck")
        assert page.evaluate(FOCUSED) == "run-list"
        page.press("j", "Enter")
        shows(page, "#steps", "execute_tool reserve")
        assert page.evaluate(FOCUSED) == "steps"
        page.press("n")
        bad = page.evaluate(CURRENT.format("steps"))
        page.press("Enter")
        shows(page, "#details", "Where it hangs")
        page.until(f"{FOCUSED} == 'details'")
        details = page.text("#details")
        shown = page.evaluate(
            "getComputedStyle(document.querySelector('#details')).outlineStyle"
        )
        page.press("Escape")
        page.until(f"{FOCUSED} == 'steps'")
        page.press("h", "h")
        folded = page.texts("#steps .row")
        page.press("l")
        unfolded = page.texts("#steps .row")
        page.press("Escape")

        assert page.evaluate(FOCUSED) == "run-list"
    assert bad.startswith("execute_tool reserve, stuck, ")
    assert bad.endswith("stuck, and has not come back")
    assert "lock: it waits for a lock" in details
    assert "thread stock" in details
    assert "agenttrace where " in details
    assert shown == "solid"
    assert len(folded) == 1
    assert len(unfolded) == 3
    assert page.complaints == []


def test_a_list_is_narrowed_by_what_is_typed_and_chosen(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """Of hundreds of runs one is looked for."""
    with scenes.playing(tmp_path, scenes.BUSY):
        pass
    with serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#status", "7 runs")
        page.press("/", *"refund")
        shows(page, "#status", "1 run")
        found = page.texts("#run-list .row")
        page.press("Escape")
        focused = page.evaluate(FOCUSED)
        page.evaluate(
            "{const q = document.querySelector('#query'); q.value = '';"
            "q.dispatchEvent(new Event('input'));"
            "const o = document.querySelector('#outcome'); o.value = 'error';"
            "o.dispatchEvent(new Event('change'))}"
        )
        shows(page, "#run-list", "shipping")
        page.until("document.querySelectorAll('#run-list .row').length == 1")
        failed = page.texts("#run-list .row")

    assert [each.split(",")[:2] for each in found] == [["invoke_agent refund", " ok"]]
    assert focused == "run-list"
    assert [each.split(",")[:2] for each in failed] == [
        ["invoke_agent shipping", " error"]
    ]


def test_a_list_says_that_older_runs_are_left_out(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """Who does not find a run there would believe that it was never recorded."""
    with scenes.playing(tmp_path, CROWDED):
        pass
    with serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#status", "500 runs, older ones left out")


def test_ten_thousand_steps_that_grow_are_a_page_like_any_other(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """A hundred rows are there, and what is told is what is new, whatever the run."""
    rows = "document.querySelectorAll('#steps .row').length"
    with (
        serving(tmp_path) as server,
        scenes.playing(tmp_path, scenes.GROWING) as growing,
    ):
        page.open(server.address)
        shows(page, "#run-list", "10,001 steps")
        page.press("j", "Enter")
        shows(page, "#steps", "folder 0")
        drawn = [page.evaluate(rows)]
        page.press("End")
        shows(page, "#steps", "page 98")
        last = page.evaluate(CURRENT.format("steps"))
        drawn.append(page.evaluate(rows))
        place = page.evaluate(
            "document.querySelector('#steps .current').getAttribute('aria-posinset')"
        )
        scenes.grow(growing, "at last")
        shows(page, "#steps", "at last")
        still = [page.evaluate(CURRENT.format("steps")), page.evaluate(FOCUSED)]
        page.press("Home", "h")
        page.until(f"{rows} == 1")
        scenes.grow(growing, "unseen")
        shows(page, "#run-facts", "10,003 steps")
        folded = page.evaluate(rows)
        told = page.evaluate(ANSWERS)

    assert all(10 < each < 100 for each in drawn)
    assert last.startswith("page 98, ok, ")
    assert place == "99"
    assert still == [last, "steps"]
    assert folded == 1
    assert told
    assert max(told) < 5000
    assert page.complaints == []


def test_what_is_marked_and_has_the_focus_stays_so(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """Who copies from a step that goes on would begin anew each second."""
    silence = "document.querySelector('#details > dl').innerText"
    with scenes.playing(tmp_path, scenes.STUCK), serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#run-list", "1 step stuck")
        page.press("j", "Enter")
        shows(page, "#steps", "execute_tool reserve")
        page.press("n", "Enter")
        shows(page, "#details", "Where it hangs")
        page.evaluate(
            "document.querySelector('#details pre').focus();"
            "getSelection().selectAllChildren(document.querySelector('#details code'))"
        )
        marked = page.evaluate("getSelection().toString()")
        before = page.evaluate(silence)
        # It has been open for a second more.
        page.until(f"{silence} != {json.dumps(before)}")

        assert page.evaluate("getSelection().toString()") == marked
        assert page.evaluate("document.activeElement.tagName") == "PRE"
    assert marked.startswith("agenttrace where ")
    assert page.complaints == []


def test_a_cancelled_run_around_a_stuck_step_says_both(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """It was cancelled because of the step: who looks for hangs has to find it."""
    with scenes.playing(tmp_path, scenes.GIVEN_UP):
        pass
    with serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#status", "1 run, 1 stuck")
        listed = page.texts("#run-list .row")
        page.evaluate(
            "{const o = document.querySelector('#outcome'); o.value = 'stuck';"
            "o.dispatchEvent(new Event('change'))}"
        )
        asked = "performance.getEntriesByType('resource')"
        page.until(f"{asked}.some((each) => /outcome=stuck/.test(each.name))")
        shows(page, "#status", "1 run, 1 stuck")
        found = page.texts("#run-list .row")

    assert [each.split(", ")[:2] for each in listed] == [
        ["invoke_agent clerk", "cancelled"]
    ]
    assert ", 1 step was stuck, " in listed[0]
    assert found == listed
    assert page.complaints == []


def test_a_text_is_a_text_whatever_stands_in_it(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """A model's output must not run in the browser of whoever debugs it."""
    with scenes.playing(tmp_path, HOSTILE):
        pass
    with serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#run-list", "onerror")
        page.press("j", "Enter")
        shows(page, "#steps", "onerror")
        page.press("Enter")
        shows(page, "#details", "<script>")
        hurt = page.evaluate("window.hurt ?? 0")
        images = page.evaluate(
            "document.querySelectorAll('img, main script, b > b').length"
        )

    assert (hurt, images) == (0, 0)
    assert page.complaints == []


def test_a_screen_reader_is_told_what_there_is(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    """Roles and names are what it has: symbols, bars and colours are not."""
    scenes.lose(tmp_path)
    with serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#status", "1 run")
        page.press("j", "Enter")
        shows(page, "#steps", "parse")
        page.press("j")
        told = page.accessible()

    roles = {role for role, _ in told}
    assert {"listbox", "option", "tree", "treeitem", "search", "status"} <= roles
    assert ("listbox", "Runs") in told
    assert ("tree", "invoke_agent importer") in told
    (option,) = (name for role, name in told if role == "option" and "import" in name)
    assert option.startswith("invoke_agent importer, lost, ")
    steps = [name for role, name in told if role == "treeitem"]
    assert [name.split(", ")[:2] for name in steps] == [
        ["invoke_agent importer", "lost"],
        ["execute_tool fetch", "ok"],
        ["execute_tool parse", "lost"],
    ]
    assert not any(symbol in name for _, name in told for symbol in "▶✓†")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(
    page: Page, serving: Serving, tmp_path: Path, scheme: str
) -> None:
    """Contrast is at least 4.5 to 1 (WCAG AA), in the light and in the dark."""
    page.scheme(scheme)
    with scenes.playing(tmp_path, scenes.BUSY):
        pass
    with serving(tmp_path) as server:
        page.open(server.address)
        shows(page, "#status", "7 runs")
        page.press("j", "Enter")
        shows(page, "#steps", "chat")
        worst = page.evaluate(CONTRAST)
    page.scheme("light")

    assert worst["ratio"] >= 4.5, worst


CONTRAST = """
(() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((each) => each / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/^(transparent|rgba\\(.*, 0\\))$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [...document.querySelectorAll("body *")]
    .filter((each) =>
      [...each.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .filter((each) => each.getClientRects().length)
    .map((each) => {
      const [a, b] = [light(getComputedStyle(each).color), light(behind(each))];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return { ratio, text: each.textContent.slice(0, 40), is: each.className };
    });
  return found.sort((one, other) => one.ratio - other.ratio)[0];
})()
"""
