"""Runs on photographs with real weights, stopped at each edge and inside each phase: equal to the bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from reliability.training_runs import ending

from tlcompile.recipe.load import load_recipe
from tlcompile.run.saving import Saving
from tlcompile.run.train import train_recipe

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
IMAGES = SHARED / "data" / "hymenoptera"
WEIGHTS = SHARED / "weights" / "squeezenet1_0-imagenet.safetensors"
COUNT = {"train": 6, "val": 2}  # photographs of each class

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (IMAGES.is_dir() and WEIGHTS.is_file()),
        reason="real images and weights are not beside this checkout (../shared)",
    ),
]
SHORT = {
    "ants_bees": ["fine_tune.epochs=3"],
    "ants_bees_progressive": [
        "fine_tune.phases.0.epochs=3",
        "fine_tune.phases.1.epochs=2",
        "fine_tune.phases.2.epochs=2",
    ],
}


class KilledError(Exception):
    """Stands for a kill behind a save; real kills are in tests/reliability."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photographs")
    for split, count in COUNT.items():
        for folder in sorted((IMAGES / split).iterdir()):
            (root / split / folder.name).mkdir(parents=True)
            for image in sorted(folder.glob("*.jpg"))[:count]:
                shutil.copy(image, root / split / folder.name / image.name)
    return root


def train(folder: Path, photographs: Path, name: str, die_at: str = "") -> list[str]:
    """Train, saving after each step; die behind the save at a place. Return where all saves were."""
    places: list[str] = []
    save = Saving.save

    def counted(self: Saving) -> None:
        save(self)
        state = self.phases.state
        places.append(f"{state.phase}:{state.epoch}:{state.step}")
        if places[-1] == die_at:
            raise KilledError

    settings = [f"data.folder={photographs}", "~data.dataset", f"base.weights={WEIGHTS}",
                "fine_tune.batch_size=4", f"run.cache={folder}/cache", *SHORT[name]]  # fmt: skip
    recipe = load_recipe(ROOT / "recipes" / f"{name}.yaml", settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saving, "save", counted)
        patch.setattr(Saving, "is_due", lambda _self: True)
        train_recipe(recipe, folder / "run")
    return places


def chosen(places: list[str]) -> list[str]:
    """Return each edge, and a place in the middle of an epoch in the middle of each phase."""
    edges = [one for one in places if one.endswith(":0:0")]
    phases = dict.fromkeys(one.split(":")[0] for one in places)
    inside = [[p for p in places if p.startswith(f"{n}:") and not p.endswith(":0")] for n in phases]
    return edges + [found[len(found) // 2] for found in inside if found]


@pytest.mark.parametrize("name", SHORT)
def test_a_run_that_was_stopped_ends_as_the_one_that_was_not(
    tmp_path: Path, photographs: Path, name: str
) -> None:
    places = train(tmp_path / "whole", photographs, name)
    wanted = ending(tmp_path / "whole" / "run")
    stops = chosen(places)
    assert len(stops) == {"ants_bees": 2, "ants_bees_progressive": 6}[name], stops
    for place in stops:
        folder = tmp_path / place.replace(":", "-")
        with pytest.raises(KilledError):
            train(folder, photographs, name, die_at=place)
        train(folder, photographs, name)
        assert ending(folder / "run") == wanted, place
