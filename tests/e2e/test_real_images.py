"""Ants and bees with real ImageNet weights, where the project's shared folder is beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tlcompile.bundle import load_bundle
from tlcompile.data.folder import scan_folder
from tlcompile.recipe.load import load_recipe
from tlcompile.run.evaluate import outputs_of
from tlcompile.run.train import train_recipe

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
IMAGES = SHARED / "data" / "hymenoptera"
WEIGHTS = SHARED / "weights" / "squeezenet1_0-imagenet.safetensors"

pytestmark = pytest.mark.skipif(
    not (IMAGES.is_dir() and WEIGHTS.is_file()),
    reason="real images and weights are not beside this checkout (../shared)",
)
POOLED = [f"data.folder={IMAGES}", "~data.dataset", f"base.weights={WEIGHTS}"]
HEAD_AUTO = ["~remove", "~add", "~outputs", "freeze=head"]


def accuracies(folder: Path, overrides: list[str]) -> tuple[float, float]:
    """Return the best and the last epoch's validation accuracy, in per cent."""
    recipe = load_recipe(ROOT / "recipes" / "ants_bees.yaml", [*POOLED, *overrides])
    result = train_recipe(recipe, folder)
    best, last = result.best.val, result.history[-1].val
    assert best is not None
    assert last is not None
    assert last.count == 153
    return 100 * best.accuracy, 100 * last.accuracy


def test_ants_and_bees_learn_in_one_run(tmp_path: Path) -> None:
    best, last = accuracies(tmp_path / "run", ["fine_tune.seed=0"])
    assert best >= 91.5
    assert last >= 89.0  # one seed; the mean over five is held below


@pytest.mark.slow
def test_ants_and_bees_over_five_seeds(tmp_path: Path) -> None:
    """The bar C6: mean of the last epoch at least 91.0 %, best epoch at least 91.5 % in each."""
    found = [accuracies(tmp_path / str(s), [f"fine_tune.seed={s}"]) for s in range(5)]
    assert sum(last for _, last in found) / 5 >= 91.0
    assert min(best for best, _ in found) >= 91.5


@pytest.mark.slow
def test_head_auto_learns_on_squeezenet(tmp_path: Path) -> None:
    """With its last ReLU kept, most seeds stay at 45.8 %."""
    for seed in range(3):
        best, _last = accuracies(tmp_path / str(seed), [*HEAD_AUTO, f"fine_tune.seed={seed}"])
        assert best >= 88.0


def predictions(folder: Path, overrides: list[str]) -> Tensor:
    """Train, and return what the last epoch's model says of every validation image."""
    recipe = load_recipe(ROOT / "recipes" / "ants_bees.yaml", [*POOLED, *overrides])
    train_recipe(recipe, folder)
    bundle = load_bundle(folder / "last")
    samples = scan_folder(str(IMAGES))["val"]
    logits = torch.cat([found for found, _ in outputs_of(bundle, samples, workers=2)])
    return logits.argmax(1)


@pytest.mark.slow
def test_fast_predicts_what_exact_does(tmp_path: Path) -> None:
    """At least 99 % of the predictions over five seeds.

    Not so with head: auto, whose training is chaotic: there fp32-fused, which differs from exact by
    1e-7, agrees in 96.7 % (README).
    """
    same = []
    for seed in range(5):
        given = [f"fine_tune.seed={seed}"]
        exact = predictions(tmp_path / f"exact{seed}", given)
        fast = predictions(tmp_path / f"fast{seed}", [*given, "features.precision=fast"])
        same.append(exact == fast)
    agreed = torch.cat(same)
    assert len(agreed) == 5 * 153
    assert agreed.float().mean() >= 0.99, f"{int(agreed.sum())} of {len(agreed)}"
