"""The range test: what it suggests, and that it changes nothing."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor, nn

from tlcompile.recipe.schema import Recipe
from tlcompile.run import find_rate as verb
from tlcompile.run.cli import main
from tlcompile.run.find_rate import find_rate
from tlcompile.run.train import train_recipe
from tlcompile.training.rate_range import RangeTest, smooth

QUICK: dict[str, Any] = {"first": 1e-5, "last": 10.0, "steps": 20}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", count=7, side=20)


def recipe(pictures: Path, **sections: Any) -> Recipe:
    tune = {"epochs": 2, "batch_size": 4, **sections.pop("fine_tune", {})}
    data = {"folder": str(pictures)}
    base = {"model": "digits_net", "size": 16}
    return make_recipe(base=base, data=data, fine_tune=tune, **sections)


def tried(losses: list[float], first: float = 1e-4, growth: float = 10.0) -> RangeTest:
    rates = tuple(first * growth**step for step in range(len(losses)))
    return RangeTest(rates, tuple(losses), tuple(losses), diverged=False)


# What it says


def test_a_tenth_of_the_rate_of_the_lowest_loss_is_suggested() -> None:
    test = tried([2.0, 1.9, 1.0, 0.6, 5.0])
    assert test.rates[test.lowest] == pytest.approx(0.1)
    assert test.suggested == pytest.approx(0.01)
    assert test.rates[test.steepest] == pytest.approx(0.01)  # from 1.9 to 0.6, over two steps


def test_nothing_is_suggested_where_no_rate_lowers_the_loss() -> None:
    assert tried([2.0, 1.99, 1.98, 2.5, 9.0]).suggested is None


def test_smoothing_does_not_lag_behind() -> None:
    """A running mean would move a valley to higher rates, where training diverges."""
    losses = [float(abs(step - 50)) for step in range(101)]
    smoothed = smooth(losses, 101)
    assert smoothed.index(min(smoothed)) == 50


# What it does


def test_rates_rise_by_a_fixed_factor_over_several_epochs(pictures: Path) -> None:
    test = find_rate(recipe(pictures), base=TinyNet(), first=1e-5, last=1e-3, steps=20)
    ratios = [b / a for a, b in itertools.pairwise(test.rates)]
    assert len(test.rates) == 20  # 12 images in batches of 4: three steps an epoch
    assert (test.rates[0], test.rates[-1]) == pytest.approx((1e-5, 1e-3))
    assert ratios == pytest.approx([ratios[0]] * 19)


def test_the_rates_are_really_taken(pictures: Path) -> None:
    """At rates of nearly zero the losses are those of the untrained model; at higher ones they fall."""
    base = TinyNet(dropout=0.0)
    still, moved = (
        find_rate(recipe(pictures), base=base, first=first, last=2 * first, steps=12)
        for first in (1e-12, 1e-2)
    )
    assert still.losses[0] == moved.losses[0]
    # Three batches an epoch, in another order each: the sum over an epoch stays.
    assert sum(still.losses[:3]) == pytest.approx(sum(still.losses[9:]), rel=1e-5)
    assert sum(moved.losses[9:]) < 0.9 * sum(moved.losses[:3])


def test_it_ends_where_the_losses_diverge(pictures: Path) -> None:
    wild = recipe(
        pictures, fine_tune={"optimizer": {"name": "sgd", "momentum": 0.9}}, freeze="none"
    )
    test = find_rate(wild, base=TinyNet(), first=1e-3, last=1e30, steps=40)
    assert test.diverged
    assert len(test.losses) < 40
    assert all(math.isfinite(loss) for loss in test.losses)


def test_twice_the_same_is_the_same(pictures: Path) -> None:
    base = TinyNet()
    one, other = (find_rate(recipe(pictures), base=base, **QUICK) for _ in range(2))
    assert one == other


def told(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_nothing_of_the_caller_is_changed(tmp_path: Path, pictures: Path) -> None:
    """The finder changes the run: fastai #2892, #3185, #3013, Lightning #6675, pytorch-lr-finder #11.

    Weights, gradients, mode, random numbers and the recipe stay; a run before and after it are equal.
    """
    base, wanted = TinyNet(), recipe(pictures)
    before, written, as_it_was = told(base), wanted.model_dump(), base.training
    first = train_recipe(wanted, tmp_path / "before", base=copy.deepcopy(base))
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    find_rate(wanted, base=base, **QUICK)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in base.parameters())
    assert base.training == as_it_was
    assert wanted.model_dump() == written
    again = train_recipe(wanted, tmp_path / "after", base=base)
    assert [row.train for row in again.history] == [row.train for row in first.history]
    assert all(torch.equal(t, told(first.model)[n]) for n, t in again.model.state_dict().items())


def test_no_file_is_written_where_one_works(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    find_rate(recipe(pictures), base=TinyNet(), **QUICK)
    assert not list(tmp_path.iterdir())


def test_a_later_phase_has_its_own_freeze_point(pictures: Path) -> None:
    phases = [{"name": "head", "epochs": 1}, {"name": "all", "epochs": 1, "freeze": "none"}]
    tune = {"phases": phases, "batch_size": 4}
    wanted = make_recipe(
        base={"model": "digits_net", "size": 16}, data={"folder": str(pictures)}, fine_tune=tune
    )
    base = TinyNet(dropout=0.0)
    head, thawed = (find_rate(wanted, base=base, phase=index, **QUICK) for index in (0, 1))
    alone = find_rate(recipe(pictures, freeze="none"), base=base, **QUICK)
    assert head.losses != thawed.losses
    assert thawed.losses == alone.losses


# The command


def test_the_command_prints_a_table_and_the_line_to_paste(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    digits = Path("recipes/digits.yaml").resolve()
    monkeypatch.chdir(tmp_path)
    assert main(["find-rate", str(digits), "--steps", "40", "--plot", "rates.svg"]) == 0
    out = capsys.readouterr().out
    assert "suggested   fine_tune.optimizer.lr=" in out
    assert "<- lowest" in out
    assert b"<svg" in Path("rates.svg").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["rates.svg"]


def test_a_plot_without_its_package_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verb, "_can_draw", lambda: False)
    assert main(["find-rate", "recipes/digits.yaml", "--plot", "rates.png"]) == 2
    assert "pip install 'tlcompile[report]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--from", "1", "--to", "0.1"], "no range"),
        (["--from", "0"], "no range"),
        (["--to", "inf"], "no range"),
        (["--steps", "9"], "fewer than 10"),
        (["--plot", "rates.doc"], "ends in none of"),
        (["--phase", "tune"], "its phases: none"),
    ],
)
def test_a_command_line_that_is_wrong_is_refused(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["find-rate", "recipes/digits.yaml", *words]) == 2
    assert told in capsys.readouterr().err
