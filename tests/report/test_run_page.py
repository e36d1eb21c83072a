from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest

from report.graphs import edited
from report.page_samples import (
    DOT,
    ENDS,
    EVIL,
    QUOTES,
    epochs,
    masks_sample,
    numbers_sample,
    run_sample,
)
from tlcompile.report.graph_page import graph_figure
from tlcompile.report.page import as_json, page, table
from tlcompile.report.pages import ClassRow, Command, Epoch, Output, Predicted, Scatter, SplitScore
from tlcompile.report.predicted import scatter_chart
from tlcompile.report.run_page import run_page, run_text


class Tags(HTMLParser):
    """The elements of a page as a browser sees them, and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def count(page: str, tag: str) -> int:
    return sum(name == tag for name, _ in Tags(page).tags)


def test_names_stay_names() -> None:
    made = Tags(run_page(run_sample()))
    assert sum(tag == "img" for tag, _ in made.tags) == 1, "the one mistake"
    assert sum(tag == "script" for tag, _ in made.tags) == 2, "data and ours"
    assert not [name for _, attrs in made.tags for name in attrs if name.startswith("on")]
    for name in (EVIL, ENDS, QUOTES):
        assert any(name in words for words in made.words), name


def test_data_cannot_end_its_element() -> None:
    text = as_json({ENDS: "<!-- & -->"})
    assert not set(text) & set("<>&")
    assert json.loads(text) == {ENDS: "<!-- & -->"}


def test_nothing_is_fetched() -> None:
    made = run_page(run_sample())
    for tag, attrs in Tags(made).tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        source = attrs.get("src") or attrs.get("href") or "data:"
        assert source.startswith("data:"), source
    assert "url(" not in made
    assert "@import" not in made


def test_the_policy_names_the_scripts_that_run() -> None:
    graph, boundary = edited()
    made = run_page(run_sample(figures=(graph_figure(graph, boundary, "m"),)))
    scripts = re.findall(r"<script>(.*?)</script>", made, re.DOTALL)
    assert len(scripts) == 2, "ours and the graph's"
    (policy,) = re.findall(r'content="(default-src[^"]*)"', made)
    for text in scripts:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_training_and_validation_are_drawn_for_loss_and_metric() -> None:
    made = run_page(run_sample())
    assert made.count('class="chart ') == 2
    assert made.count('class="curve train"') == made.count('class="curve val"') == 2
    assert made.count("best: epoch 2") == 2
    assert made.count('class="dot val"') == 6


def test_without_validation_one_line_is_drawn() -> None:
    rows = tuple(Epoch(i, "main", {"train/loss": 1 / i, "train/accuracy": 0.5}) for i in (1, 2))
    made = run_page(run_sample(epochs=rows, monitor="train/loss", best=2))
    assert made.count('class="curve train"') == 2
    assert 'class="curve val"' not in made


def test_a_loss_that_is_not_finite_leaves_a_gap() -> None:
    rows = list(epochs(4))
    rows[1] = Epoch(2, "main", {**rows[1].values, "train/loss": math.nan})
    made = run_page(run_sample(epochs=tuple(rows)))
    (line,) = [d for d in re.findall(r'class="curve train" d="(.*?)"', made) if d.count("M") == 2]
    assert "nan" not in line
    assert "nan" not in made.partition("<main>")[2].partition("</main>")[0]


def test_phases_are_marked_where_there_are_several() -> None:
    both = (*epochs(3, "head"), *epochs(2, "all", 4))
    made = run_page(run_sample(epochs=both))
    assert made.count('class="band"') == 2, "the second phase, in two charts"
    assert re.findall(r'class="phase"[^>]*>(\w+)<', made) == ["head", "all"] * 2
    assert 'class="phase"' not in run_page(run_sample())


def test_one_epoch_can_be_drawn() -> None:
    assert 'class="dot val"' in run_page(run_sample(epochs=epochs(1), best=1))


def test_scores_have_n_and_interval() -> None:
    made = " ".join(Tags(run_page(run_sample())).words)
    assert "60.0 to 90.0" in made
    scored = run_sample(scores=(SplitScore("test", 7, {"loss": 0.5}),))
    words = " ".join(Tags(run_page(scored)).words)
    assert "test (used once)" in words


def test_a_cell_of_the_matrix_is_shaded_by_its_share_of_the_row() -> None:
    made = run_page(run_sample())
    shades = re.findall(r'<td class="s(\d)( right)?" title="[^"]*">([^<]*)<', made)
    assert [(s, n) for s, _, n in shades] == [
        ("4", "8"), ("1", "1"), ("1", "1"),
        ("1", "2"), ("4", "8"), ("0", "·"),
        ("0", "·"), ("0", "·"), ("5", "10"),
    ]  # fmt: skip
    assert [i for i, (_, right, _) in enumerate(shades) if right] == [0, 4, 8]


def test_many_classes_are_the_pairs_that_are_confused_most() -> None:
    rows = tuple(ClassRow(f"c{i}", 5, 4, 0.8 - i / 100, 0.8, 0.8) for i in range(30))
    matrix = [[4 if i == j else 0 for j in range(30)] for i in range(30)]
    matrix[3][7] = 9
    data = run_sample(outputs=(Output("", rows, tuple(map(tuple, matrix))),))
    made = run_page(data)
    assert 'class="matrix"' not in made
    words = [w for w in Tags(made).words if w.strip()]
    at = words.index("taken for")
    assert words[at + 3 : at + 7] == ["c3", "c7", "9", "13"]
    assert words.index("c29") < words.index("c0"), "the lowest recall first"


def test_mistakes_say_what_they_are() -> None:
    made = run_page(run_sample())
    words = " ".join(Tags(made).words)
    assert f"4 of 30 {ENDS}" in words
    assert f"said  {QUOTES} , 97 %" in words
    assert f"is {ENDS}" in words
    assert DOT in made
    assert 'class="pixelated"' in made
    told = run_page(run_sample(predicted=(), predicted_note="Not shown: gone."))
    assert "Not shown: gone." in told
    assert "Mistakes</h2>" not in told


def test_numbers_are_drawn_true_against_predicted() -> None:
    made = run_page(run_sample(predicted=(numbers_sample(),)))
    (dots,) = re.findall(r'class="cloud" d="(.*?)"', made)
    assert dots.count("h0") == 2
    (line,) = re.findall(r'class="equal" d="M(\S+) (\S+)L(\S+) (\S+)"', made)
    left, bottom, right, top = map(float, line)
    assert left < right
    assert bottom > top
    assert "mean absolute error 0.75, 2 of 40 images" in " ".join(Tags(made).words)


def test_a_number_that_is_right_lies_on_the_line() -> None:
    made = scatter_chart(Scatter("n", ((0.0, 0.0), (3.0, 3.0), (10.0, 10.0)), 3, 0.0))
    places = re.findall(r"M(\S+) (\S+)h0", made)
    (line,) = re.findall(r'class="equal" d="M(\S+) (\S+)L(\S+) (\S+)"', made)
    x0, y0, x1, y1 = map(float, line)
    for x, y in places:
        assert abs((float(x) - x0) / (x1 - x0) - (float(y) - y0) / (y1 - y0)) < 2e-3


def test_a_number_that_is_not_finite_has_no_dot() -> None:
    made = scatter_chart(Scatter("n", ((0.0, 1.0), (2.0, math.nan), (math.inf, 3.0)), 3, math.nan))
    assert made.count("h0") == 1
    assert "nan " not in made.partition("cloud")[2]


def test_many_numbers_are_folded_away() -> None:
    assert "<summary>3 more</summary>" in run_page(run_sample(predicted=(numbers_sample(9),)))


def test_masks_stand_beside_the_image_with_their_colours() -> None:
    made = Tags(run_page(run_sample(predicted=(masks_sample(),))))
    images = [attrs for tag, attrs in made.tags if tag == "img"]
    assert [one["title"] for one in images] == [QUOTES, "its mask", "predicted mask"]
    assert [attrs["fill"] for tag, attrs in made.tags if tag == "rect" and "fill" in attrs] == [
        "#000000", "#e69f00"
    ]  # fmt: skip


@pytest.mark.parametrize("made", [numbers_sample(), masks_sample()])
def test_names_in_numbers_and_masks_stay_names(made: Predicted) -> None:
    found = Tags(run_page(run_sample(predicted=(made,))))
    assert sum(tag == "script" for tag, _ in found.tags) == 2
    assert sum(tag == "img" for tag, _ in found.tags) == len(made.tiles[0].images)
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]
    assert sum(ENDS in words for words in found.words) > 0
    assert sum(EVIL in words for words in found.words) > 0


def test_pixels_are_told_in_shares_with_their_overlap() -> None:
    rows = tuple(ClassRow(name, 1200, 900, 0.75, 0.9, 0.8) for name in ("a", "b"))
    output = Output("", rows, ((900, 300), (300, 900)), "segmentation")
    made = run_page(run_sample(outputs=(output,)))
    words = [w for w in Tags(made).words if w.strip()]
    at = words.index("IoU")
    assert words[at - 5 : at + 8] == [
        "pixels", "correct", "recall", "precision", "F1", "IoU",
        "a", "1,200", "900", "75.0 %", "90.0 %", "80.0 %", "66.7 %",
    ]  # fmt: skip
    assert re.findall(r'<td class="s\d(?: right)?" title="[^"]*">([^<]*)<', made) == [
        "75.0", "25.0", "25.0", "75.0"
    ]  # fmt: skip


def test_the_curve_of_each_output_is_drawn() -> None:
    values = {f"{s}/{n}": 0.5 for s in ("train", "val") for n in ("loss", "a/accuracy", "b/mae")}
    rows = tuple(Epoch(i, "main", {**values, "val/b/r2": 0.1}) for i in (1, 2))
    made = run_page(run_sample(epochs=rows, monitor="val/loss"))
    assert re.findall(r'class="title"[^>]*>([^<]*)<', made) == ["loss", "a/accuracy", "b/mae"]
    made = run_page(run_sample(epochs=rows, monitor="val/b/r2"))
    assert re.findall(r'class="title"[^>]*>([^<]*)<', made)[-1] == "b/r2"


def test_each_output_has_its_own_section() -> None:
    rows = (ClassRow("a", 1, 1, 1.0, 1.0, None),)
    made = run_page(run_sample(outputs=(Output("species", rows), Output("sex", rows))))
    assert "<h2>Classes: species</h2>" in made
    assert "<h2>Classes: sex</h2>" in made


def test_commands_are_whole() -> None:
    words = Tags(run_page(run_sample())).words
    assert f"tlcompile train '{ENDS}'" in words
    assert "tlcompile predict x" in words


def test_in_short() -> None:
    told = run_text(run_sample(reproduce=Command("tlcompile train x")))
    assert "accuracy 80.0 %" in told
    assert "curves: good fit" in told
    assert "(n = 30, 95 % interval 60.0 to 90.0)" in told
    assert "lowest recall" in told
    assert told.endswith("tlcompile train x")


def test_numbers_stand_to_the_right() -> None:
    made = table(("a", "b"), [("x", "1"), ("y", "")])
    assert made.count('class="number"') == 3
    assert table(("a",), []) == ""


def test_a_page_without_data_has_none() -> None:
    assert '<script type="application/json" id="data">null</script>' in page("t", ["x"])
