from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from report.graphs import classes, drawn, edited, insides, row, summary
from tlcompile.compiler import prove_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.report.drawing import LETTERS, MEANINGS, path
from tlcompile.report.graph_page import graph_figure, graph_page, page_of, script, style

NASTY = "<script>alert(1)</script>&\"'"


def compiled(name: str) -> CompiledModel:
    recipe = {"base": {"model": name}, "freeze": {"upto": "stage3"}, "data": {"folder": "x"}}
    return prove_recipe(Recipe.model_validate(recipe))


class Elements(HTMLParser):
    """The elements of a page, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += (
            data if self.found[-1:] and self.found[-1][0] not in ("script", "style") else ""
        )


def vertex_names(page: str) -> list[str]:
    return [
        str(attributes["data-name"])
        for _, attributes in Elements(page).found
        if str(attributes.get("class", "")) == "node vertex"
    ]


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_b_16", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_every_vertex_is_drawn_once_in_two_megabytes(name: str) -> None:
    model = compiled(name)
    page = graph_page(model.summary, model.boundary, name)
    assert Counter(vertex_names(page)) == Counter(r.name for r in model.summary.vertices)
    assert len(page.encode()) < 2_000_000
    assert f"{model.boundary[0].num_bytes:,} bytes of features an image" in page


def test_removed_vertices_are_drawn_too() -> None:
    graph, boundary = edited()
    assert {"neck.extra.conv", "classifier"} <= set(vertex_names(graph_page(graph, boundary, "t")))


def test_every_wire_has_both_ends() -> None:
    for unfold in (None, True, False):
        found = 0
        for inside in insides(drawn(*edited(), unfold)):
            names = {box.name for box in inside.boxes}
            for line in inside.lines:
                found += 1
                assert line.source in names or (not line.source and inside.name)
                assert line.target in names or (not line.target and inside.name)
                assert line.source or line.target
        assert found > 5


def test_every_wire_starts_at_its_shape() -> None:
    found = 0
    for inside in insides(drawn(*edited(), unfold=True)):
        boxes = {box.name: box for box in inside.boxes}
        for line in (line for line in inside.lines if line.source):
            shape = line.tensors.partition(" ")[2]
            bottom = boxes[line.source].bottom
            near = [t for t in inside.labels if bottom < t.bottom < bottom + 20 and t.name == shape]
            assert any(0 < t.left - line.corners[0][0] < 40 for t in near), line
            found += 1
    assert found > 10


def test_each_state_has_a_letter_and_an_outline_of_its_own() -> None:
    letters = [LETTERS[state] for state in MEANINGS]
    assert len(set(letters)) == len(letters) == 7
    outlines = {}
    for state in MEANINGS:
        rules = re.findall(rf"\.is-{state} > \.body[^{{]*{{([^}}]*)}}", style())
        outlines[state] = tuple(sorted(re.findall(r"stroke[\w-]*: [^;]+", " ".join(rules))))
    del outlines["kept"]  # as frozen, thin; it has no colour in its body, and no letter
    assert len(set(outlines.values())) == len(outlines), outlines


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2 of #rgb or #rrggbb."""
    digits = colour.removeprefix("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mixed(colour: str, paper: str, share: float) -> str:
    """Return what a translucent colour gives on paper."""
    full = [f"{''.join(2 * d for d in c[1:])}" if len(c) == 4 else c[1:] for c in (colour, paper)]
    pairs = [(int(full[0][i : i + 2], 16), int(full[1][i : i + 2], 16)) for i in (0, 2, 4)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)


def test_all_text_has_contrast() -> None:
    themes = re.findall(
        r"--ink: (#\w+); --paper: (#\w+).*?--frame: (#\w+); --body: ([.\d]+)", style()
    )
    assert len(themes) == 3, "light, dark, print"
    colours = dict(re.findall(r"\.cell\.is-(\w+) { fill: (#\w+)", style()))
    assert set(colours) == set(MEANINGS)
    for ink, paper, frame, share in themes:
        assert contrast(ink, paper) > 4.5
        assert contrast(ink, frame) > 4.5
        for colour in colours.values():
            assert contrast(ink, mixed(colour, paper, float(share))) > 4.5, (ink, colour)
            assert contrast("#000", colour) > 4.5, "a letter on its cell"


def test_names_are_data() -> None:
    graph = summary(row("x"), row(NASTY, "x", kind=NASTY, shape=NASTY), model=NASTY)
    page = graph_page(graph, (), NASTY)
    scripts = [tag for tag, _ in Elements(page).found if tag == "script"]
    assert len(scripts) == 1, "our own"
    assert "alert" not in "".join(re.findall(r"<script>(.*?)</script>", page, re.DOTALL))
    assert NASTY in vertex_names(page)
    assert NASTY in Elements(page).text
    drawn(graph)  # and the SVG stays well formed


def test_the_page_needs_nothing_else() -> None:
    graph, boundary = edited()
    page = graph_page(graph, boundary, "t")
    links = {"src", "href", "xlink:href", "action", "data", "srcset"}
    for tag, attributes in Elements(page).found:
        assert not links & set(attributes), (tag, attributes)
        assert tag not in ("link", "iframe", "object", "img", "base")
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bfetch\(|XMLHttpRequest", style() + page)


def test_figures_share_style_and_script() -> None:
    graph, boundary = edited()
    figure = graph_figure(graph, boundary, "t")
    assert figure.startswith("<figure")
    assert "<style" not in figure
    assert "<script" not in figure
    assert " id=" not in figure, "two of them fit on one page"
    page = page_of("t", [figure, figure])
    assert page.count(figure) == 2
    assert page.count(script()) == page.count(style()) == 1


def test_nothing_frozen_is_said() -> None:
    assert "Nothing is frozen" in graph_page(summary(row("x"), row("a", "x")), (), "t")


def test_regions_are_buttons_that_say_whether_they_are_open() -> None:
    graph, boundary = edited()
    for unfold in (True, False):
        said = {
            node.get("aria-expanded")
            for node in drawn(graph, boundary, unfold).iter()
            if node.get("role") == "button" and "box" in classes(node)
        }
        assert said == {str(unfold).lower()}


def test_a_path_goes_round_corners() -> None:
    round_corners = "M0 0L0 5Q0 10 6 10L34 10Q40 10 40 16L40 30"
    assert path([(0, 0), (0, 10), (40, 10), (40, 30)], arrow=False) == round_corners
    assert path([(0, 0), (0, 9)], arrow=True) == "M0 0L0 9M-4 3L0 9L4 3"
