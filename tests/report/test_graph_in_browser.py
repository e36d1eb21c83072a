"""What a graph does in a real browser; skipped where none is installed."""

from __future__ import annotations

from typing import Any

from report.browser import asks, needs_browser
from report.graphs import GRAPH, edited, row, summary
from tlcompile.model.compiled import Summary
from tlcompile.report.graph_page import graph_page

pytestmark = needs_browser


def page() -> str:
    graph, boundary = edited()
    return graph_page(graph, boundary, "t")


def folded() -> Summary:
    rows = [row("x")]
    rows += [row(f"a.b{i // 5}.v{i}", rows[-1].name if i % 4 else "x") for i in range(40)]
    return summary(*rows)


REDRAWN = """
    const before = [wires(), places()];
    redraw(figure);
    return [before, [wires(), places()]];
"""


@asks(page, REDRAWN, before=GRAPH)
def test_it_draws_what_python_drew(found: Any) -> None:
    assert len(found[0][0]) > 10
    assert found[0] == found[1]


@asks(lambda: graph_page(folded(), (), "t"), REDRAWN, before=GRAPH)
def test_it_draws_what_is_folded_as_python_drew_it(found: Any) -> None:
    assert len(found[0][0]) > 10
    assert found[0] == found[1]


@asks(
    page,
    """
    const start = open(), drawn = wires();
    figure.querySelector(".graph-collapse").click();
    const none = open(), inside = all(".vertex").filter(seen).length;
    figure.querySelector(".graph-expand").click();
    const every = open(), shown = all(".vertex").filter(seen).length;
    box("body").dispatchEvent(new MouseEvent("click", {bubbles: true}));
    const clicked = [open(), box("body").getAttribute("aria-expanded")];
    key(box("body"), "Enter");
    const entered = [open(), box("body").getAttribute("aria-expanded")];
    key(box("body"), " ");
    return {start, none, inside, every, shown, clicked, entered, space: open(),
      controls: seen(figure.querySelector(".graph-controls")), same: String(drawn) === String(wires())};
    """,
    before=GRAPH,
)
def test_controls_fold_and_unfold(found: Any) -> None:
    everything = ["stem", "body", "body.0", "body.1", "neck", "neck.extra"]
    assert found["start"] == found["every"] == everything
    assert found["none"] == []
    assert found["inside"] == 6, "x, pool, aux, fc, classifier, output"
    assert found["shown"] == 18
    assert found["clicked"] == [["stem", "body.0", "body.1", "neck", "neck.extra"], "false"]
    assert found["entered"] == [everything, "true"]
    assert found["space"] == found["clicked"][0]
    assert found["controls"] is True
    assert found["same"] is False


@asks(
    page,
    """
    figure.querySelector(".graph-expand").click();
    return all("svg.graph .box").filter(seen).map((box) => {
      const body = box.querySelector(".body").getBoundingClientRect();
      return [...box.querySelectorAll("text")].every((text) => {
        const { left, right, top, bottom } = text.getBoundingClientRect();
        return left >= body.left && right <= body.right && top >= body.top && bottom <= body.bottom;
      });
    });
    """,
    before=GRAPH,
)
def test_texts_stay_in_their_boxes(found: Any) -> None:
    assert len(found) == 24
    assert all(found)


@asks(
    lambda: graph_page(folded(), (), "t"),
    """
    const search = figure.querySelector(".graph-search");
    const ask = (text) => { search.value = text; search.dispatchEvent(new Event("input")); };
    const count = () => figure.querySelector(".graph-count").textContent;
    const found = () => all(".found").map((node) => node.dataset.name);
    const told = [open()];
    ask("a.b4.v2");
    told.push(count(), open());
    key(search, "Enter");
    told.push(count(), open(), found(), seen(all(".found")[0]), said().split("\\n")[0]);
    key(search, "Enter");
    told.push(count(), found());
    ask("a.b0.v3");
    told.push(count(), found());
    ask("nowhere");
    told.push(count(), found());
    return told;
    """,
    before=GRAPH,
)
def test_search_opens_what_it_finds(found: Any) -> None:
    told = found
    assert told[0] == []
    assert told[1:3] == ["5 found", []]
    assert told[3:8] == ["2 of 5", ["a", "a.b4"], ["a.b4.v21"], True, "a.b4.v21"]
    assert told[8:10] == ["3 of 5", ["a.b4.v22"]]
    assert told[10:12] == ["1 of 1", ["a.b0.v3"]]
    assert told[12:14] == ["0 found", []]


@asks(
    page,
    """
    box("body.1.conv1").dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    const hovered = said();
    box("x").focus();
    box("x").dispatchEvent(new FocusEvent("focusin", {bubbles: true}));  // a window in the back sends none
    return [hovered, said(), document.activeElement === box("x")];
    """,
    before=GRAPH,
)
def test_hover_and_focus_tell_what_is_known(found: Any) -> None:
    hovered, focused, active = found
    assert "Conv2d (N, 12, 4, 4)" in hovered
    assert "864 parameters" in hovered
    assert "FLOPs" in hovered
    assert focused.startswith("x\ninput")
    assert active is True
