"""What the page does in a real browser; skipped where none is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from report.graphs import edited, row, summary
from tlcompile.model.compiled import Summary
from tlcompile.report.graph_page import graph_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: the page is not opened")

FIRST = (
    "<script>window.errors = []; addEventListener('error', e => errors.push(e.message));</script>"
)
REPORT = """
<script>
const figure = document.querySelector(".graph-figure");
const all = (selector) => [...figure.querySelectorAll(selector)];
const wires = () => all(".wire").map((wire) => wire.getAttribute("d"));
const places = () => all(".node[data-row]").map((node) => node.getAttribute("transform"));
const seen = (node) => node.getClientRects().length > 0 && node.getBoundingClientRect().height > 0;
const open = () => all(".region.open:not(.root)").map((region) => region.dataset.name);
const box = (name) => all(".node").find((node) => node.dataset.name === name).querySelector(":scope > .box");
const said = () => figure.querySelector(".graph-about").textContent;
const key = (target, name) => target.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
function run() { %s }
let result;
try { result = run(); } catch (error) { errors.push(String(error)); }
const told = document.createElement("pre");
told.id = "told";
told.textContent = JSON.stringify({ result, errors });
document.body.append(told);
</script>
"""


def in_browser(tmp_path: Path, page: str, code: str) -> Any:
    """Open a page, run a function's body in it, and return what that returns."""
    assert BROWSER
    file = tmp_path / "page.html"
    page = page.replace("<head>", f"<head>{FIRST}").replace("</body>", f"{REPORT % code}</body>")
    file.write_text(page, encoding="utf-8")
    home = f"--user-data-dir={tmp_path / 'browser'}"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", home]
    command = [BROWSER, *flags, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    told = json.loads(unescape(found[1]))
    assert told["errors"] == []
    return told["result"]


def page() -> str:
    graph, boundary = edited()
    return graph_page(graph, boundary, "t")


def folded() -> Summary:
    rows = [row("x")]
    rows += [row(f"a.b{i // 5}.v{i}", rows[-1].name if i % 4 else "x") for i in range(40)]
    return summary(*rows)


def test_it_draws_what_python_drew(tmp_path: Path) -> None:
    code = """
    const before = [wires(), places()];
    redraw(figure);
    return [before, [wires(), places()]];
    """
    for number, text in enumerate([page(), graph_page(folded(), (), "t")]):
        (tmp_path / str(number)).mkdir()
        before, after = in_browser(tmp_path / str(number), text, code)
        assert len(before[0]) > 10
        assert before == after


def test_controls_fold_and_unfold(tmp_path: Path) -> None:
    code = """
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
    """
    found = in_browser(tmp_path, page(), code)
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


def test_texts_stay_in_their_boxes(tmp_path: Path) -> None:
    code = """
    figure.querySelector(".graph-expand").click();
    return all("svg.graph .box").filter(seen).map((box) => {
      const body = box.querySelector(".body").getBoundingClientRect();
      return [...box.querySelectorAll("text")].every((text) => {
        const { left, right, top, bottom } = text.getBoundingClientRect();
        return left >= body.left && right <= body.right && top >= body.top && bottom <= body.bottom;
      });
    });
    """
    found = in_browser(tmp_path, page(), code)
    assert len(found) == 24
    assert all(found)


def test_search_opens_what_it_finds(tmp_path: Path) -> None:
    code = """
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
    """
    told = in_browser(tmp_path, graph_page(folded(), (), "t"), code)
    assert told[0] == []
    assert told[1:3] == ["5 found", []]
    assert told[3:8] == ["2 of 5", ["a", "a.b4"], ["a.b4.v21"], True, "a.b4.v21"]
    assert told[8:10] == ["3 of 5", ["a.b4.v22"]]
    assert told[10:12] == ["1 of 1", ["a.b0.v3"]]
    assert told[12:14] == ["0 found", []]


def test_hover_and_focus_tell_what_is_known(tmp_path: Path) -> None:
    code = """
    box("body.1.conv1").dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    const hovered = said();
    box("x").focus();
    box("x").dispatchEvent(new FocusEvent("focusin", {bubbles: true}));  // a window in the back sends none
    return [hovered, said(), document.activeElement === box("x")];
    """
    hovered, focused, active = in_browser(tmp_path, page(), code)
    assert "Conv2d (N, 12, 4, 4)" in hovered
    assert "864 parameters" in hovered
    assert "FLOPs" in hovered
    assert focused.startswith("x\ninput")
    assert active is True
