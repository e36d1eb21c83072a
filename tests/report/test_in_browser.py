"""What the pages of runs and sweeps do in a real browser; skipped where none is installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from report.browser import asks, needs_browser
from report.graphs import GRAPH, edited
from report.page_samples import EVIL, masks_sample, numbers_sample, run_sample, sweep_sample
from tlcompile.report.graph_page import graph_figure
from tlcompile.report.pages import ClassRow, Output
from tlcompile.report.run_page import run_page
from tlcompile.report.sweep_page import sweep_page

pytestmark = needs_browser

SWEEP = """
const all = (selector) => [...document.querySelectorAll(selector)];
const rows = () => all("tr[data-point]").filter((row) => !row.hidden).map((row) => Number(row.dataset.point));
const marks = (number) => all(`.mark[data-point="${number}"]`);
const about = () => document.querySelector(".about").textContent;
const head = (word) => all(".sortable th button").find((button) => button.textContent === word);
const button = (word) => all("button").find((button) => button.textContent === word);
"""


def rates() -> str:
    return sweep_page(sweep_sample(rates=("1e-3", "1e-4")))


def seeds() -> str:
    return sweep_page(sweep_sample(seeds=10))


@asks(
    rates,
    """
    const hint = about();
    marks(2)[0].dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    const hovered = [about(), all(".is-active").map((node) => node.tagName)];
    document.querySelector("h1").dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    const left = [about() === hint, all(".is-active").length];
    all('tr[data-point="5"]')[0].dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    const row = [about(), marks(5).every((mark) => mark.classList.contains("is-active"))];
    const stops = all(".chart.interactive").map(
      (chart) => chart.querySelectorAll('.mark[tabindex="0"]').length);
    const first = document.querySelector('.mark[tabindex="0"]');
    first.focus();
    key(first, "ArrowRight");
    const second = document.activeElement;
    const moved = second !== first
      && second.classList.contains("mark") && second.getAttribute("tabindex") === "0";
    key(second, "Enter");
    const chosen = [second.getAttribute("aria-pressed"), all("tr.is-chosen").length,
      all("tr.is-chosen")[0].dataset.point === second.dataset.point];
    marks(6)[1].dispatchEvent(new MouseEvent("click", {bubbles: true}));
    button("chosen only").click();
    const only = rows().length;
    key(document.body, "Escape");
    return {hint, hovered, left, row, stops, moved, chosen, only, cleared: rows().length,
      titles: all(".mark title").length, named: second.getAttribute("aria-label") !== ""};
    """,
    before=SWEEP,
)
def test_a_sweeps_charts_and_table_answer_together(found: Any) -> None:
    assert found["hint"].startswith("Hover over a point")
    assert "freeze.upto=layer1 fine_tune.optimizer.lr=1e-4 fine_tune.seed=0" in found["hovered"][0]
    assert found["hovered"][1] == ["g", "g", "g", "path", "LI", "TR", "LI"]
    assert found["left"] == [True, 0]
    assert EVIL in found["row"][0]
    assert found["row"][1] is True
    assert found["stops"] == [1, 1, 1, 0]
    assert found["moved"] is True
    assert found["chosen"] == ["true", 1, True]
    assert found["only"] == 2
    assert found["cleared"] == 8
    assert found["titles"] == 0
    assert found["named"] is True


@asks(
    rates,
    """
    const start = rows();
    head("seconds").click();
    const up = [rows(), head("seconds").parentNode.getAttribute("aria-sort")];
    head("seconds").click();
    const down = [rows(), head("seconds").parentNode.getAttribute("aria-sort")];
    head("accuracy").click();
    const value = [rows(), all("th[aria-sort]").length];
    head("lr").click();
    const rate = rows();
    const press = all(".legend button");
    press[0].click();
    const one = [press[0].textContent.trim(), press[0].getAttribute("aria-pressed"), rows().length,
      all(".mark.is-dim").length, document.querySelector('[role="status"]').textContent];
    press[1].click();
    const both = rows().length;
    button("clear").click();
    const search = document.querySelector("input[type=search]");
    search.value = "layer1 seed=0";
    search.dispatchEvent(new Event("input"));
    const typed = rows().sort();
    search.value = "failed";
    search.dispatchEvent(new Event("input"));
    return {start, up, down, value, rate, one, both, typed, failed: rows()};
    """,
    before=SWEEP,
)
def test_a_sweeps_table_sorts_and_filters(found: Any) -> None:
    assert found["start"] == [6, 5, 4, 3, 2, 1, 0, 7]
    assert found["up"] == [list(range(8)), "ascending"]
    assert found["down"] == [list(range(7, -1, -1)), "descending"]
    assert found["value"] == [[0, 1, 2, 3, 4, 5, 6, 7], 1]
    assert [n in (2, 3, 6, 7) for n in found["rate"]] == [True] * 4 + [False] * 4
    assert found["one"] == ["lr 1e-4", "true", 4, 12, "4 of 8 points"]
    assert found["both"] == 8
    assert found["typed"] == [0, 2]
    assert found["failed"] == [7]


NARROW = """
    document.querySelector("main").style.width = "328px";  // a telephone of 360 px, less its edges
    const edge = document.querySelector("main").getBoundingClientRect().left + 360;
    const wide = [...document.querySelectorAll("main *")].filter((node) =>
      !node.closest(".scroll, .graph-picture, .chart") && node.getBoundingClientRect().right > edge);
"""


@asks(
    rates,
    f"""{NARROW}
    const tables = [...document.querySelectorAll(".scroll")].map((box) => box.scrollWidth > box.clientWidth);
    return [wide.map((node) => node.outerHTML.slice(0, 80)), tables.includes(true),
      document.documentElement.scrollWidth <= innerWidth];
    """,
    before=SWEEP,
    width=500,
)
def test_a_sweep_fits_a_telephone(found: Any) -> None:
    assert found[0] == []
    assert found[1:] == [True, True], "wide tables move in themselves, never the page"


def with_graph() -> str:
    graph, boundary = edited()
    return run_page(run_sample(figures=(graph_figure(graph, boundary, "m"),)))


@asks(
    with_graph,
    f"""{NARROW}
    const image = document.querySelector(".tiles img");
    document.querySelector(".copy").click();
    document.querySelector(".graph-collapse").click();
    return [wide.map((node) => node.outerHTML.slice(0, 80)), image.naturalWidth,
      all(".region.open:not(.root)").length, String(getSelection()) || "copied"];
    """,
    before=GRAPH,
    width=500,
)
def test_a_run_with_its_graph_fits_a_telephone_and_answers(found: Any) -> None:
    assert found[0] == []
    assert found[1] == 2
    assert found[2] == 0


@asks(
    rates,
    """
    const small = (number) => document.querySelector(`.multiples li[data-point="${number}"]`);
    small(2).dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    const hovered = [small(2).classList.contains("is-active"), about().includes("seed=0")];
    small(2).querySelector("svg").dispatchEvent(new MouseEvent("click", {bubbles: true}));
    button("chosen only").click();
    return {hovered, shown: all(".multiples li").filter(seen).map((one) => Number(one.dataset.point)),
      rows: rows(), folded: seen(small(0))};
    """,
    before=SWEEP,
)
def test_small_charts_answer_with_the_others(found: Any) -> None:
    assert found == {"hovered": [True, True], "shown": [2], "rows": [2], "folded": False}


def without_script() -> str:
    return seeds().replace("<script>", "<script type='text/plain'>")


@asks(
    without_script,
    """
    const shown = () => all(".multiples li").filter((one) => one.checkVisibility()).length;
    const before = shown();
    document.querySelector("details.more summary").click();
    return [before, shown()];
    """,
    before=SWEEP,
)
def test_what_is_folded_away_needs_no_script(found: Any) -> None:
    """`details` is the browser's own: 12 small charts are seen, and the others when it is opened."""
    assert found == [12, 19]


def with_numbers() -> str:
    return run_page(run_sample(predicted=(numbers_sample(7), masks_sample())))


@asks(
    with_numbers,
    f"""{NARROW}
    const images = [...document.querySelectorAll(".trio img")].map((one) => one.naturalWidth);
    const dots = document.querySelector(".cloud").getBoundingClientRect();
    return [wide.map((node) => node.outerHTML.slice(0, 80)), images, dots.width > 100];
    """,
    width=500,
)
def test_numbers_and_masks_fit_a_telephone(found: Any) -> None:
    assert found == [[], [2, 2, 2], True]


PAPER = """
    // What the style sheet says of paper, said of the screen.
    const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules])
      .filter((rule) => rule.media?.mediaText === "print").flatMap((rule) => [...rule.cssRules]);
    const paper = document.createElement("style");
    paper.textContent = rules.map((rule) => rule.cssText).join("\\n");
    document.head.append(paper);
    const edge = document.querySelector("main").getBoundingClientRect().right + 1;
    const wide = [...document.querySelectorAll("main *")].filter((node) =>
      !node.closest(".chart, .graph-figure") && node.getBoundingClientRect().right > edge);
"""


@asks(
    seeds,
    f"""{PAPER}
    const visible = (selector) => all(selector).filter((one) => one.checkVisibility()).length;
    return {{wide: wide.map((node) => node.outerHTML.slice(0, 80)),
      controls: [".tools", ".copy", ".about"].map(visible), small: visible(".multiples li"),
      commands: visible(".commands .command"), open: all("details")[1].open,
      head: getComputedStyle(document.querySelector(".sortable th button")).display}};
    """,
    before=SWEEP,
    width=760,
)
def test_a_sweep_on_paper_is_whole_and_has_no_controls(found: Any) -> None:
    assert found["wide"] == []
    assert found["controls"] == [0, 0, 0]
    assert (found["open"], found["commands"]) == (False, 20), "what is folded on the screen"
    assert found["small"] == 12, "but not what would fill sheet after sheet"
    assert found["head"] == "contents", "else Chromium repeats no head on the next sheet"


def with_long_names() -> str:
    names = [f"American black bear, Ursus {i} americanus" for i in range(20)]
    rows = tuple(ClassRow(name, 100, 50, 0.5, 0.5, 0.5) for name in names)
    output = Output("", rows, tuple((50,) + (100,) * 19 for _ in range(20)))
    return run_page(run_sample(outputs=(output,), predicted=(masks_sample(), numbers_sample())))


@asks(
    with_long_names, f"{PAPER} return wide.map((node) => node.outerHTML.slice(0, 80));", width=760
)
def test_a_matrix_of_twenty_long_names_fits_on_paper(found: Any) -> None:
    assert found == []


def with_forbidden() -> str:
    bad = '<img src="x.png"><script>0</script></main>'
    return run_page(run_sample()).replace("</main>", bad)


@asks(with_forbidden, "return missing;")
def test_what_the_page_forbids_is_noticed(told: Mapping[str, Any]) -> None:
    """The guard of the tests above is seen to fail."""
    forbidden = ["img-src", "script-src-elem", "ReferenceError: missing is not defined"]
    assert sorted(told["test_what_the_page_forbids_is_noticed"]["errors"]) == sorted(forbidden)
