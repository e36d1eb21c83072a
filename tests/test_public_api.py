"""What `import tlcompile` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import TinyNet, make_pictures, make_recipe

import tlcompile
from tlcompile.errors.resume import RunFinishedError

NAMES = [
    "Bundle",
    "CompiledModel",
    "FeatureTrainer",
    "Features",
    "Recipe",
    "TLCompileError",
    "compile_recipe",
    "load_bundle",
    "load_recipe",
    "train",
]


def test_the_names() -> None:
    assert tlcompile.__all__ == sorted(NAMES) == NAMES
    assert dir(tlcompile) == NAMES
    for name in NAMES:
        assert getattr(tlcompile, name).__name__ == name
        assert getattr(tlcompile, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tlcompile.nothing


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'torchvision', 'hydra', 'omegaconf', 'pydantic', 'numpy', 'PIL'}"
    code = f"import sys, tlcompile; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


RECIPE = """\
base: {{model: digits_net, size: 16}}
data: {folder}
fine_tune: {{epochs: 2}}
"""


def test_the_five_liner(tmp_path: Path) -> None:
    data = make_pictures(tmp_path / "data", side=20)
    path = tmp_path / "flowers.yaml"
    path.write_text(RECIPE.format(folder=data))
    overrides = ["fine_tune.epochs=3", f"output_dir={tmp_path / 'runs'}"]
    recipe = tlcompile.load_recipe(path, overrides)
    model, history = tlcompile.train(recipe, base=TinyNet())
    assert [row.epoch for row in history] == [1, 2, 3]
    assert not model.training
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("flowers-")
    bundle = tlcompile.load_bundle(folder, base=TinyNet())
    assert bundle.classes == ("ants", "bees")
    tlcompile.train(path, overrides, base=TinyNet())
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        folder.name,
        f"{folder.name}-2",
    ]


def test_an_unfinished_run_beside_a_finished_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was left behind for good: each call began in the next free folder."""
    path = tmp_path / "flowers.yaml"
    path.write_text(RECIPE.format(folder=make_pictures(tmp_path / "data", side=20)))
    overrides = ["fine_tune.epochs=1", f"output_dir={tmp_path / 'runs'}"]
    tlcompile.train(path, overrides, base=TinyNet())
    with monkeypatch.context() as patch:
        patch.setattr("tlcompile.run.train.finish", _end)
        with pytest.raises(ZeroDivisionError):
            tlcompile.train(path, overrides, base=TinyNet())
    tlcompile.train(path, overrides, base=TinyNet())
    assert len([*(tmp_path / "runs").iterdir()]) == 2


def _end(*_given: object) -> None:
    raise ZeroDivisionError


def test_overrides_beside_a_loaded_recipe_are_not_ignored() -> None:
    with pytest.raises(TypeError, match="load_recipe"):
        tlcompile.train(make_recipe(base={"model": "digits_net"}), ["fine_tune.epochs=1"])


def test_a_folder_can_be_named_once(tmp_path: Path) -> None:
    recipe = make_recipe(
        base={"model": "digits_net", "size": 16},
        data=str(make_pictures(tmp_path / "data", side=20)),
        fine_tune={"epochs": 1},
    )
    tlcompile.train(recipe, base=TinyNet(), folder=tmp_path / "mine")
    weights = tmp_path / "mine" / "bundle" / "model.safetensors"
    before = weights.read_bytes()
    with pytest.raises(RunFinishedError, match="mine-2"):
        tlcompile.train(recipe, base=TinyNet(), folder=tmp_path / "mine")
    assert weights.read_bytes() == before
