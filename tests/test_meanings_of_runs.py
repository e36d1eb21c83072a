"""One meaning each: those of T1 to T17 that show in files, on the command line, or in a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from graph.tiny import recipe_of

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.load import load_recipe, recipe_from, spell_out
from tlcompile.recipe.overrides import parse_override
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.yaml_reader import read_recipe_text
from tlcompile.run.cli import main
from tlcompile.run.folder import recipe_digest, run_folder
from tlcompile.run.train import train_recipe


def digits(text: str, *overrides: str) -> Recipe:
    """Write and read a recipe over the bundled base, in the current folder."""
    Path("digits.yaml").write_text(text)
    return load_recipe("digits.yaml", overrides)


FIRST = """\
name: first
base: {model: digits_net}
freeze: block1
data: {dataset: digits, classes: ["5", "6", "7"], per_class: 4}
fine_tune: {seed: 7, epochs: 1, batch_size: 8}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_t01_the_run_that_was_the_base(here: Path) -> None:
    first = digits(FIRST)
    trained = train_recipe(first, run_folder(first)).model
    thaw = digits("base: {run: runs/first}\nfreeze: stem\n")
    assert (thaw.data, thaw.task, thaw.fine_tune.seed) == (first.data, first.task, 7)
    assert thaw.fine_tune.epochs == 10  # of fine_tune the seed alone
    model = compile_recipe(thaw)
    assert {n.split(".")[0] for n in model.frozen.tensors} == {"stem"}
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(model.eval()(x), trained.eval()(x))


def test_t01_other_class_names_than_the_run_s_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = digits(FIRST)
    train_recipe(first, run_folder(first))
    digits('base: {run: runs/first}\nfreeze: stem\ndata: {classes: ["7", "8", "9"]}\n')
    assert main(["check", "digits.yaml"]) == 2
    told = capsys.readouterr().err
    assert "5, 6, 7" in told
    assert "7, 8, 9" in told
    assert "head: auto" in told


PHASES = """\
base: {model: own, size: 16}
freeze: bn
fine_tune:
  optimizer: {name: sgd, lr: 1e-3, momentum: 0.9}
  schedule: {name: step, every: 2}
  phases:
    - {name: head, epochs: 3}
    - {name: all, freeze: none, until: {plateau: 2}, epochs: 20, lr: 1e-4}
"""


def test_t07_a_phase_inherits_what_it_does_not_say() -> None:
    """What a recipe says of its phases; training them is the runner's and tested there."""
    head, every = recipe_of(PHASES).phases()
    assert (head.freeze.upto, every.freeze.upto) == (("bn",), ("none",))
    assert (head.fine_tune.epochs, every.fine_tune.epochs) == (3, 20)
    assert head.fine_tune.optimizer.model_dump() == {
        "name": "sgd", "lr": 1e-3, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0,
    }  # fmt: skip
    assert every.fine_tune.optimizer == head.fine_tune.optimizer.model_copy(update={"lr": 1e-4})
    assert every.fine_tune.schedule == head.fine_tune.schedule


def test_t07_epochs_beside_phases_have_no_effect() -> None:
    with pytest.raises(TLCompileError, match="epochs stands beside phases"):
        recipe_of(PHASES.replace("  phases:", "  epochs: 10\n  phases:"))


def test_t08_equal_points_of_a_sweep_are_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits(FIRST)
    assert main(["train", "digits.yaml", "-m", "freeze.upto=stem,'stem'"]) == 2
    assert "[duplicate-point]" in capsys.readouterr().err


def test_t12_paths_are_relative_to_the_current_directory(here: Path) -> None:
    (here / "far").mkdir()
    (here / "far" / "r.yaml").write_text(f"{FIRST}run: {{output_dir: results}}\n")
    recipe = load_recipe("far/r.yaml")
    assert run_folder(recipe).parent == Path("results")
    read = load_recipe("far/r.yaml", ["~data.dataset", "data.folder=/any/where"])
    assert read.data.folder == "/any/where"  # a path to read may be absolute


@pytest.mark.parametrize("folder", ["/any/where", "../up"])
def test_t12_only_the_command_line_names_an_absolute_place_to_write(
    here: Path, folder: str
) -> None:
    with pytest.raises(TLCompileError, match=r"digits\.yaml:6:"):
        digits(f"{FIRST}run: {{output_dir: {folder}}}\n")
    assert run_folder(digits(FIRST, f"output_dir={folder}")).parent == Path(folder)


def test_t13_a_finished_run_says_so_and_again_goes_beside_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unfinished run goes on: tests/run/test_rerun.py."""
    folder = run_folder(digits(FIRST))
    assert main(["train", "digits.yaml"]) == 0
    before = (folder / "record.json").read_bytes()
    capsys.readouterr()
    assert main(["train", "digits.yaml"]) == 0
    assert "is finished: epoch" in capsys.readouterr().out
    assert (folder / "record.json").read_bytes() == before
    assert main(["train", "digits.yaml", "--again"]) == 0
    assert folder.with_name(f"{folder.name}-2").is_dir()


def test_t13_the_eight_hex_cover_what_decides_the_result(here: Path) -> None:
    same = [
        "name=other",
        "output_dir=/else",
        "run.device=cpu",
        "run.workers=1",
        "features.cache=off",
    ]
    first = recipe_digest(digits(FIRST))
    assert {recipe_digest(digits(FIRST, override)) for override in same} == {first}
    others = ["fine_tune.seed=8", "freeze=stem", "data.per_class=5", "fine_tune.epochs=2"]
    assert len({recipe_digest(digits(FIRST, override)) for override in others} | {first}) == 5


VGG = """\
base: {model: vgg16}
remove: {classifier.6: replace}
add: {classifier.6: {layer: linear, out: 5}}
fine_tune: {optimizer: {name: sgd, lr: 0.01, momentum: 0.9}, epochs: 3}
"""


def overridden(override: str) -> Recipe:
    root = spell_out(read_recipe_text(VGG, "vgg.yaml"))
    return recipe_from(root, [parse_override(override)], "vgg")


def test_t15_overrides_find_the_recipe_s_own_keys() -> None:
    assert overridden("add.classifier.6.out=7").add["classifier.6"].out == 7  # type: ignore[union-attr]
    assert overridden("~remove.classifier.6").remove == {}
    tagged = overridden("fine_tune.optimizer={name: adamw, lr: 1e-3}").fine_tune
    assert tagged.optimizer.model_fields_set == {"name", "lr"}
    assert (tagged.optimizer.name, tagged.epochs) == ("adamw", 3)  # the rest is merged
    merged = overridden("fine_tune={epochs: 4}").fine_tune
    assert (merged.optimizer.name, merged.epochs) == ("sgd", 4)


@pytest.mark.parametrize(("freeze", "lr"), [("head", "0.001"), ("block1", "0.0001")])
def test_t17_the_rate_fits_the_freeze_point(
    here: Path, capsys: pytest.CaptureFixture[str], freeze: str, lr: str
) -> None:
    digits(FIRST)
    assert main(["plan", "digits.yaml", f"freeze={freeze}"]) == 0
    assert re.search(rf"adamw +{lr} .*cosine", capsys.readouterr().out)
