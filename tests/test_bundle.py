"""A bundle gives back the same model, or says why it cannot."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.bundle import load_bundle, save_bundle
from tlcompile.compiler import compile_recipe
from tlcompile.durable.manifest import entry_of, manifest_bytes
from tlcompile.errors.run import DamagedFileError, NotABundleError
from tlcompile.errors.training import GoldenMismatchError
from tlcompile.errors.weights import WeightsFileError
from tlcompile.model.saved import FrozenFile
from tlcompile.recipe.finished import FILES, FROZEN, WEIGHTS
from tlcompile.run.evaluate import judge
from tlcompile.run.labelled import labelled
from tlcompile.run.objective import objective_of_bundle
from tlcompile.run.train import RunResult, train_recipe
from tlcompile.zoo.bundled import digits_net
from tlcompile.zoo.files import read_tensors


def trained(folder: Path, pictures: Path, **sections: object) -> RunResult:
    recipe = make_recipe(
        base={"model": "digits_net", "size": 16},
        data={"folder": str(pictures), **sections.pop("data", {})},  # type: ignore[dict-item]
        fine_tune={"epochs": 2, "batch_size": 4},
        **sections,
    )
    return train_recipe(recipe, folder, base=TinyNet())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", side=20)


@pytest.fixture
def run(tmp_path: Path, pictures: Path) -> tuple[Path, RunResult]:
    return tmp_path / "run", trained(tmp_path / "run", pictures)


def test_what_is_loaded_equals_what_was_saved(run: tuple[Path, RunResult]) -> None:
    folder, result = run
    bundle = load_bundle(folder, base=TinyNet())
    for (name, ours), theirs in zip(
        result.model.state_dict().items(), bundle.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(result.model(images), bundle.model(images))
    assert not bundle.model.training
    assert bundle.model.frozen == result.model.frozen
    assert bundle.classes == ("ants", "bees")
    assert bundle.task == "classification"
    assert bundle.preprocessing.size == 16


def test_there_is_no_pickle(run: tuple[Path, RunResult]) -> None:
    for name in ("bundle", "last"):
        found = {path.name for path in (run[0] / name).iterdir()}
        assert found == {*FILES, FROZEN, "manifest.json"}


@pytest.mark.parametrize("name", [*FILES, FROZEN, "manifest.json"])
def test_a_flipped_bit_is_seen(run: tuple[Path, RunResult], name: str) -> None:
    path = run[0] / "bundle" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedFileError, match=name.replace(".", r"\.")):
        load_bundle(run[0], base=TinyNet())


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(run: tuple[Path, RunResult], name: str) -> None:
    (run[0] / "bundle" / name).unlink()
    with pytest.raises(NotABundleError) as caught:
        load_bundle(run[0], base=TinyNet())
    assert caught.value.missing == (name,)


def test_missing_frozen_weights_are_named(run: tuple[Path, RunResult]) -> None:
    (run[0] / "bundle" / FROZEN).unlink()
    with pytest.raises(DamagedFileError, match=r"frozen\.safetensors"):
        load_bundle(run[0], base=TinyNet())


def test_two_files_have_each_tensor_once(run: tuple[Path, RunResult]) -> None:
    """What trains is in one, what is frozen in the other: any reader of safetensors has both."""
    bundle, model = run[0] / "bundle", run[1].model
    trained, frozen = (load_file(bundle / name) for name in (WEIGHTS, FROZEN))
    assert frozen.keys() == model.frozen.tensors
    state = model.state_dict()
    assert sorted([*trained, *frozen]) == sorted(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in (trained | frozen).items())


def test_last_and_best_weights_share_what_is_frozen(run: tuple[Path, RunResult]) -> None:
    files = [run[0] / name / FROZEN for name in ("last", "bundle")]
    assert files[0].samefile(files[1])


def test_the_file_of_what_is_frozen_keeps_no_model_alive() -> None:
    """A sweep holds it to its end: what the first point trained would stay in memory."""
    recipe = make_recipe(base={"model": "digits_net", "size": 16})
    model = compile_recipe(recipe, TinyNet(), num_classes=2)
    names, gone = model.frozen.tensors, weakref.ref(model)
    file = FrozenFile.of(model, names)
    del model
    gc.collect()
    assert gone() is None
    assert file.names == names


@pytest.mark.parametrize("name", [WEIGHTS, FROZEN])
def test_one_of_two_files_is_no_base_weights(run: tuple[Path, RunResult], name: str) -> None:
    with pytest.raises(WeightsFileError) as caught:
        read_tensors(str(run[0] / "bundle" / name))
    assert f"base: {{run: '{run[0] / 'bundle'}'}}" in caught.value.fix()


def test_a_copy_is_whole_without_the_run(run: tuple[Path, RunResult], tmp_path: Path) -> None:
    shutil.copytree(run[0] / "bundle", tmp_path / "copy")
    shutil.rmtree(run[0])
    model = load_bundle(tmp_path / "copy", base=TinyNet()).model
    assert all(
        torch.equal(tensor, model.state_dict()[name])
        for name, tensor in run[1].model.state_dict().items()
    )


def test_one_file_has_all_weights_where_nothing_is_frozen(tmp_path: Path, pictures: Path) -> None:
    result = trained(tmp_path / "run", pictures, freeze={"upto": ["none"]})
    assert not (tmp_path / "run" / "bundle" / FROZEN).exists()
    assert (
        load_file(tmp_path / "run" / "bundle" / WEIGHTS).keys() == result.model.state_dict().keys()
    )
    load_bundle(tmp_path / "run", base=TinyNet())


def test_a_folder_of_something_else_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotABundleError):
        load_bundle(tmp_path)


def rewrite(bundle: Path, name: str, data: bytes) -> None:
    """Replace a file as someone would who knows the format: with a manifest that fits."""
    (bundle / name).write_bytes(data)
    entries = {other: entry_of((bundle / other).read_bytes()) for other in (*FILES, FROZEN)}
    (bundle / "manifest.json").write_bytes(manifest_bytes(entries))


def test_a_model_that_computes_something_else_is_refused(run: tuple[Path, RunResult]) -> None:
    bundle = run[0] / "bundle"
    tensors = load_file(bundle / "model.safetensors")
    tensors["fc.bias"] += 0.5
    rewrite(bundle, "model.safetensors", save(tensors))
    with pytest.raises(GoldenMismatchError) as caught:
        load_bundle(run[0], base=TinyNet())
    assert caught.value.difference == pytest.approx(0.5, rel=1e-3)


def test_the_last_bits_of_the_golden_sample_may_differ(run: tuple[Path, RunResult]) -> None:
    bundle = run[0] / "bundle"
    mapped = load_file(bundle / "golden.safetensors")
    golden = {name: tensor.clone() for name, tensor in mapped.items()}  # its file is written over
    output = golden["output.output"]
    rewrite(bundle, "golden.safetensors", save({**golden, "output.output": output * (1 + 1e-5)}))
    load_bundle(run[0], base=TinyNet())
    not_a_number = output.clone()
    not_a_number[0, 0] = torch.nan
    for other in (output * (1 + 1e-2), not_a_number):
        rewrite(bundle, "golden.safetensors", save({**golden, "output.output": other}))
        with pytest.raises(GoldenMismatchError):
            load_bundle(run[0], base=TinyNet())


def test_saving_again_gives_the_same_bytes(run: tuple[Path, RunResult], tmp_path: Path) -> None:
    folder, result = run
    record = json.loads((folder / "bundle" / "record.json").read_bytes())
    for name in ("a", "b"):
        save_bundle(tmp_path / name, result.model, {"base": {"model": "x"}}, record)
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_class_order_is_carried(tmp_path: Path, pictures: Path) -> None:
    trained(tmp_path / "run", pictures, data={"classes": ["bees", "ants"]})
    assert load_bundle(tmp_path / "run", base=TinyNet()).classes == ("bees", "ants")


def test_a_folder_is_judged_by_the_names_of_its_classes(tmp_path: Path, pictures: Path) -> None:
    """The model says bees, ants; folders come sorted, and this one has a class only."""
    trained(tmp_path / "run", pictures, data={"classes": ["bees", "ants"]})
    bundle = load_bundle(tmp_path / "run", base=TinyNet())
    goals = objective_of_bundle(bundle).goals
    samples = labelled(bundle, str(pictures), goals, print)
    assert samples.counts() == {"bees": 6, "ants": 6}
    assert {
        bundle.classes[label]
        for label, path in zip(samples.labels, samples.ids, strict=True)
        if "ants" in Path(path).parts
    } == {"ants"}
    found = judge(bundle, samples, workers=1)
    assert found.score.count == 12
    assert [(one.name, one.count) for one in found.classes[""]] == [("bees", 6), ("ants", 6)]
    only = make_pictures(tmp_path / "more", classes=("ants",), count=3, side=20)
    found = judge(bundle, labelled(bundle, str(only), goals, print), workers=1)
    assert [(one.name, one.count) for one in found.classes[""]] == [("bees", 0), ("ants", 3)]


def test_it_loads_without_the_weights_of_its_base(tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(save(digits_net(3).state_dict() | digits_net().state_dict()))
    recipe = make_recipe(
        base={"model": "digits_net", "weights": str(weights)},
        data={"dataset": "digits", "per_class": 3},
        fine_tune={"epochs": 1},
    )
    result = train_recipe(recipe, tmp_path / "run")
    weights.unlink()
    bundle = load_bundle(tmp_path / "run")
    assert torch.equal(
        bundle.model.state_dict()["fc.weight"], result.model.state_dict()["fc.weight"]
    )
