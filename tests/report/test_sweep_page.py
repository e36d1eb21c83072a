from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from report.page_samples import ENDS, EVIL, point, sweep_sample
from report.test_run_page import Tags
from tlcompile.report.encoding import FREEZE, encode, short_names
from tlcompile.report.pages import Advice, SweepData, SweepPoint
from tlcompile.report.sweep_charts import best_point, charts, charts_svg, pareto
from tlcompile.report.sweep_curves import small_charts
from tlcompile.report.sweep_page import sweep_page, sweep_text


def sweep(points: Sequence[SweepPoint], **more: object) -> SweepData:
    freezes = tuple(dict.fromkeys(p.freeze for p in points))
    data = replace(sweep_sample(), points=tuple(points), freeze_points=freezes)
    return replace(data, **more)  # type: ignore[arg-type]


def swept(freeze: str = "a", **keys: Sequence[str]) -> SweepData:
    """Return a sweep over one key after the other, all other keys at their first value."""
    first = {key: values[0] for key, values in keys.items()}
    chosen = [first, *({**first, key: v} for key, values in keys.items() for v in values[1:])]
    return sweep([point(i, freeze, 0.5, **one) for i, one in enumerate(chosen)])


def test_names_stay_names() -> None:
    made = Tags(sweep_page(sweep_sample()))
    assert not any(tag == "img" for tag, _ in made.tags)
    assert sum(tag == "script" for tag, _ in made.tags) == 2
    assert not [name for _, attrs in made.tags for name in attrs if name.startswith("on")]
    assert any(EVIL in words for words in made.words)
    assert any(ENDS in words for words in made.words)


def test_depth_goes_right_rates_are_colours_and_seeds_spread() -> None:
    found = encode(sweep_sample(rates=("1e-3", "1e-4")))
    assert found.across == FREEZE
    assert found.values == ("layer1", EVIL)
    assert found.colour == found.shape == "fine_tune.optimizer.lr"
    assert found.colours == ("1e-4", "1e-3"), "by size"
    assert found.repeats == ("fine_tune.seed",)
    assert found.rest == ()


def test_a_second_key_is_the_symbol_and_a_third_is_said() -> None:
    found = encode(swept(lr=("1", "2", "3"), epochs=("1", "2"), batch=("8", "16")))
    assert (found.across, found.colour, found.shape) == ("lr", "epochs", "batch")
    found = encode(swept(lr=("1", "2"), a=("1", "2"), b=("1", "2"), c=("1", "2")))
    assert found.rest == ("c",)
    assert "Not told apart here, but in the table: c." in " ".join(
        Tags(sweep_page(swept(lr=("1", "2"), a=("1", "2"), b=("1", "2"), c=("1", "2")))).words
    )


def test_many_numbers_are_an_axis() -> None:
    found = encode(swept(lr=[f"{10**-i:g}" for i in range(12)]))
    assert found.scale().log
    assert not found.scale().named
    assert found.colour is None


def test_seeds_alone_are_told_apart() -> None:
    found = encode(swept(seed=("0", "1", "2")))
    assert found.across == "seed"
    assert found.repeats == ()


def test_a_point_of_its_own_is_a_sweep_too() -> None:
    assert len(charts(swept())) == 4


def test_short_names_are_unique() -> None:
    names = short_names(["a.lr", "b.lr", "freeze.upto", "x.seed"])
    assert list(names.values()) == ["a.lr", "b.lr", "freeze", "seed"]


def test_pareto_points() -> None:
    points = [(1, 0.5), (2, 0.4), (2, 0.6), (3, 0.6), (4, 0.9), (1, 0.5)]
    assert pareto(points, rising=True) == [0, 2, 4]
    losses = [(1, 3.0), (2, 2.0), (3, 2.5)]
    assert pareto(losses, rising=False) == [0, 1]
    assert pareto([], rising=True) == []


def test_pareto_points_are_ringed_in_both_charts_of_costs() -> None:
    drawn = charts(sweep_sample())
    assert [chart.count('class="ring"') for chart in drawn] == [0, 3, 3, 0]


def test_every_point_is_in_every_chart() -> None:
    data = sweep_sample()
    for chart in charts(data):
        numbers = {int(n) for n in re.findall(r'data-point="(\d+)"', chart)}
        assert numbers == {0, 1, 2}, "the failed one has no value"


def test_seeds_have_a_range_and_a_mean() -> None:
    made = charts(sweep_sample(seeds=3))[0]
    assert made.count('class="range') == made.count('class="mean ') == 2
    assert 'class="whisker' not in made


def test_single_points_have_their_intervals() -> None:
    made = charts(sweep_sample(seeds=1))[0]
    assert made.count('class="whisker') == 1
    assert 'class="range' not in made


def test_the_best_comes_first_and_what_failed_last() -> None:
    made = sweep_page(sweep_sample())
    assert re.findall(r'<tr data-point="(\d+)"', made) == ["2", "1", "0", "3"]
    assert 'class="failed"' in made
    words = Tags(made).words
    assert f"ran out: {ENDS}" in words


def test_of_losses_the_lowest_is_the_best() -> None:
    points = [point(i, "a", value, seed=str(i)) for i, value in enumerate((0.7, 0.2, 0.5))]
    data = sweep([*points, point(3, "a", None)], metric="val/loss", rising=False)
    assert best_point(data) == 1
    assert re.findall(r'<tr data-point="(\d+)"', sweep_page(data)) == ["1", "2", "0", "3"]


def test_what_the_data_do_not_tell_apart_is_said() -> None:
    near = [point(0, "a", 0.9), point(1, "b", 0.88), point(2, "c", 0.5)]
    assert "Another point is within that interval" in " ".join(Tags(sweep_page(sweep(near))).words)
    far = [point(0, "a", 0.9), point(1, "b", 0.5)]
    assert "within that interval" not in " ".join(Tags(sweep_page(sweep(far))).words)


def test_means_over_seeds() -> None:
    points = [point(i, "ab"[i // 2], (0.5, 0.7, 0.9, 0.8)[i], seed=str(i % 2)) for i in range(4)]
    words = [w for w in Tags(sweep_page(sweep(points))).words if w.strip()]
    at = words.index("mean accuracy")
    assert words[at + 4 : at + 9] == ["freeze=b", "85.0 %", "80.0 %", "90.0 %", "2"]
    assert words[at + 9 : at + 14] == ["freeze=a", "60.0 %", "50.0 %", "70.0 %", "2"]


def test_every_point_has_its_command() -> None:
    words = Tags(sweep_page(sweep_sample())).words
    for index in range(4):
        assert f"tlcompile train sweeps/x/{index}/recipe.yaml" in words
    whole = f"tlcompile train '{ENDS}' -m a=1,2"
    assert whole in Tags(sweep_page(replace(sweep_sample(), command=whole))).words


SMALL = re.compile(r'<li data-point="(\d+)"><svg class="chart small".*?</li>', re.DOTALL)


def test_each_point_has_a_small_chart_of_the_same_scale() -> None:
    made = small_charts(sweep_sample(seeds=3))
    found = list(SMALL.finditer(made))
    assert [int(one[1]) for one in found] == [4, 3, 2, 1, 0], "the best first; no curve, no chart"
    ticks = {tuple(re.findall(r"<text[^>]*>([^<]*)<", one[0])) for one in found}
    assert len(ticks) == 1
    starts = {re.search(r'class="judged c0" d="M(\S+ \S+)', one[0])[1] for one in found}  # type: ignore[index]
    assert len(starts) == 1, "all begin at 0.1"
    assert all(one[0].count('class="learns"') == one[0].count('class="dot') == 1 for one in found)
    assert len({re.search(r'class="reference" d="(.*?)"', one[0])[1] for one in found}) == 1  # type: ignore[index]


def test_a_best_value_of_zero_has_its_line() -> None:
    data = sweep([replace(point(i, "a", 0.0), curve=(0.0, 0.0)) for i in range(2)])
    assert small_charts(data).count('class="reference"') == 2


def test_large_numbers_are_sorted_by_all_their_digits() -> None:
    data = sweep([replace(point(i, "a", 0.5), trainable=11_689_512 + i) for i in range(2)])
    found = re.findall(r'data-value="(11689\d+)"', sweep_page(data))
    assert sorted(found) == ["11689512", "11689513"]


def test_small_charts_beyond_the_first_are_folded_away() -> None:
    made = small_charts(sweep_sample(seeds=20))
    before, _, after = made.partition("<summary>the other 27</summary>")
    assert (len(SMALL.findall(before)), len(SMALL.findall(after))) == (12, 27)
    assert "<summary" not in small_charts(sweep_sample())


def test_a_point_of_one_epoch_has_no_small_chart() -> None:
    data = sweep([replace(point(i, "a", 0.5), curve=(0.5,)) for i in range(2)])
    assert small_charts(data) == ""
    assert "<h2>Curves</h2>" not in sweep_page(data)


def test_names_that_are_equal_when_cut_are_left_to_the_legend() -> None:
    def labels(*values: str) -> int:
        points = [point(i, "ab"[i % 2], 0.5, optimizer=values[i // 2]) for i in range(4)]
        return charts(sweep(points))[0].count('class="label')

    assert labels("adamw", "sgd") == 2
    assert labels("{name: adamw, lr: 1e-3}", "{name: sgd, lr: 1e-3}") == 0


def test_losses_that_differ_much_are_drawn_by_their_logarithm() -> None:
    points = [
        replace(point(0, "a", 0.01), curve=(30.0, math.inf, 0.01), train_curve=(50.0, 0.0, 0.02))
    ]
    made = small_charts(sweep(points, metric="val/loss", rising=False))
    assert "nan" not in made
    assert "inf" not in made


def test_a_sweep_in_which_all_failed_has_a_page() -> None:
    made = sweep_page(sweep([point(0, "a", None), point(1, "b", None)]))
    assert "Failed points" in made
    assert "<svg" not in made


def test_two_hundred_points_are_drawn() -> None:
    points = [
        point(i, f"layer{i % 10}", 0.5 + i / 500, lr=str(i % 4), seed=str(i // 40))
        for i in range(200)
    ]
    made = sweep_page(sweep(points))
    assert made.count('<g class="mark') == 3 * 200 + 4, "three charts, and four words of the legend"
    assert len(made) < 1_000_000


def test_advice_is_shown_where_it_is_there() -> None:
    advice = Advice("It ranked well.", (("freeze", "score"), (("a", "1"),)))
    assert "It ranked well." in sweep_page(replace(sweep_sample(), advice=advice))
    assert "Advice" not in sweep_page(sweep_sample())


@pytest.mark.parametrize("rates", [("1",), ("1", "2")])
def test_the_charts_alone_are_one_picture(rates: tuple[str, ...]) -> None:
    made = charts_svg(sweep_sample(rates=rates))
    root = ElementTree.fromstring(made)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert made.count('class="title"') == 4
    assert "<script" not in made
    assert ("lr 2" in made) == (len(rates) > 1)


def test_in_short() -> None:
    told = sweep_text(sweep_sample())
    assert told.splitlines()[0] == f"{ENDS}: 4 points, 1 failed, 10 s of work"
    assert "best  70.0 % (n = 100, 65.0 to 75.0)" in told
    assert "failed  freeze.upto" in told
