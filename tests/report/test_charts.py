from __future__ import annotations

import itertools
import math
import re

import pytest

from tlcompile.report.charts import (
    COLOURS,
    HEIGHT,
    LEFT,
    SHAPES,
    WIDTH,
    Panel,
    apart,
    cut,
    drawn,
    mark,
    names_scale,
    number_scale,
    polyline,
    room_below,
    short,
    whole_scale,
)
from tlcompile.report.page import style

# Machado, Oliveira, Fernandes (2009): deuteranopia, on linear RGB.
DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
Colour = tuple[float, float, float]


def colours(dark: bool) -> dict[str, Colour]:
    """Return the page's colours by name, as linear RGB."""
    light, night = style().split("@media (prefers-color-scheme: dark)")[:2]
    text = night.split("\n}")[0] if dark else light
    found = dict(re.findall(r"--([\w-]+): #([0-9a-f]{3,6})", text))
    return {name: linear(code) for name, code in found.items()}


def linear(code: str) -> Colour:
    code = "".join(c * 2 for c in code) if len(code) == 3 else code
    shares = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares)
    return r, g, b


def contrast(one: Colour, other: Colour) -> float:
    """Return WCAG's contrast of two colours."""
    first, second = (0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in (one, other))
    return (max(first, second) + 0.05) / (min(first, second) + 0.05)


def seen(colour: Colour) -> Colour:
    """Return what a deuteranope sees of a colour, in CIELAB."""
    r, g, b = (
        min(1.0, max(0.0, sum(m * c for m, c in zip(row, colour, strict=True))))
        for row in DEUTERANOPIA
    )
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    f = [v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z)]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_can_be_read(dark: bool) -> None:
    found = colours(dark)
    texts = ["ink", "soft", "link", "bad", *(f"c{i}" for i in range(COLOURS))]
    for text, ground in itertools.product(texts, ["paper"]):
        assert contrast(found[text], found[ground]) >= 4.5, (text, ground)
    for text in ("ink", "soft", "link"):
        assert contrast(found[text], found["tint"]) >= 4.5, text
    for shade in ("s4", "s5"):
        assert contrast(found["on-dark"], found[shade]) >= 4.5, shade
    for shade in ("s1", "s2", "s3"):
        assert contrast(found["ink"], found[shade]) >= 4.5, shade
    assert contrast(found["ink"], found["active"]) >= 4.5


@pytest.mark.parametrize("dark", [False, True])
def test_a_deuteranope_tells_the_series_apart(dark: bool) -> None:
    found = colours(dark)
    for i, j in itertools.combinations(range(COLOURS), 2):
        assert math.dist(seen(found[f"c{i}"]), seen(found[f"c{j}"])) > 12, (i, j)


def test_symbols_differ() -> None:
    assert len(set(SHAPES)) == len(SHAPES) == COLOURS


def test_round_ticks() -> None:
    assert [word for _, word in number_scale([0.5, 0.95], percent=True).ticks] == [
        "50 %", "60 %", "70 %", "80 %", "90 %",
    ]  # fmt: skip
    assert [word for _, word in number_scale([1.2, 45], unit="s").ticks] == [
        "1 s", "3 s", "10 s", "30 s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "values", [[3], [0], [0, 0], [1e-9, 2e-9], [-5, 5], [1, 1e6], [math.nan], [], [0.1, math.inf]]
)
def test_a_scale_holds_its_values(values: list[float]) -> None:
    scale = number_scale(values)
    assert scale.ticks
    for value in filter(math.isfinite, values):
        assert 0 <= scale.at(value) <= 1
    for value, _ in scale.ticks:
        assert -1e-6 <= scale.at(value) <= 1 + 1e-6


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, -math.inf, math.nan])
def test_a_value_without_a_place_on_a_log_scale_has_none(value: float) -> None:
    assert math.isnan(number_scale([1e-6, 1.0]).at(value))


def test_a_share_never_goes_past_one() -> None:
    assert number_scale([0.5, 1.0], percent=True, log=False, high=1.0).at(1.0) == 1
    assert number_scale([0.0, 1.0], log=False, low=0.0).at(0.0) == 0


@pytest.mark.parametrize("values", [[-0.5], [-3.2, -0.5], [-0.5, 0.3]])
def test_an_r2_below_zero_is_held_too(values: list[float]) -> None:
    """Nothing is drawn below zero where all values are above: a guess alone has an R2 of 0."""
    scale = number_scale(values, low=0.0)
    assert all(0 <= scale.at(value) <= 1 for value in values)


def test_equal_factors_are_equally_far_apart() -> None:
    scale = number_scale([1, 10, 100])
    assert scale.log
    assert scale.at(10) - scale.at(1) == pytest.approx(scale.at(100) - scale.at(10))


@pytest.mark.parametrize("count", [1, 2, 5, 30, 200, 1000])
def test_epochs_have_few_whole_ticks(count: int) -> None:
    scale = whole_scale(range(1, count + 1))
    assert 1 <= len(scale.ticks) <= 9
    assert all(value == int(value) for value, _ in scale.ticks)
    assert 0 <= scale.at(1) <= scale.at(count) <= 1


def test_numbers_are_short() -> None:
    assert list(map(short, (0, 0.003, 900, 999.6, 92_997, 1.82e9))) == [
        "0", "0.003", "900", "1k", "93k", "1.82G",
    ]  # fmt: skip


def test_a_name_too_long_for_its_place_is_turned() -> None:
    scale = names_scale(
        ["features.denseblock1", "features.denseblock2", "features.denseblock3"] * 2
    )
    panel = Panel("y", "x", scale, number_scale([0, 1]), room_below(scale))
    assert "rotate" in drawn(panel, "")
    assert panel.height > Panel("y", "x", names_scale(["a"]), number_scale([0, 1])).height
    assert "rotate" not in drawn(Panel("y", "x", names_scale(["a", "b"]), number_scale([0, 1])), "")


def test_up_is_more() -> None:
    panel = Panel("y", "x", number_scale([0, 1]), number_scale([0, 1]))
    assert panel.up(1) < panel.up(0) <= HEIGHT
    assert LEFT <= panel.across(0) < panel.across(1) <= WIDTH


def test_a_value_that_is_missing_breaks_the_line() -> None:
    path = polyline([(0, 1), (1, math.nan), (2, 3), (3, 4)], "c")
    assert re.findall(r'd="(.*?)"', path) == ["M0 1M2 3L3 4"]
    assert polyline([(0, math.nan)], "c") == ""


def test_labels_move_apart_and_keep_their_order() -> None:
    assert apart([10, 10, 10], 14, 200) == [10, 24, 38]
    moved = apart([190, 195, 60], 14, 200)
    assert moved[2] == 60
    assert moved[0] <= moved[1] - 14
    assert max(moved) <= 200


def test_a_mark_says_what_it_is() -> None:
    text = mark((1, 2), shape=0, colour=1, point=7, title="<b>", look="pareto")
    assert 'data-point="7"' in text
    assert "<title>&lt;b&gt;</title>" in text
    assert "ring" in text
    assert "ring" not in mark((1, 2), shape=0, colour=1, point=7, title="")


def test_the_middle_of_a_long_name_goes() -> None:
    assert cut("abcdefghij", 7) == "abc…hij"
    assert cut("abc", 7) == "abc"
