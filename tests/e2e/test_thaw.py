"""A base that was a run: its edits, classifier, data and seed; thawing by hand, again and again."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_pictures
from torch import Tensor

from tlcompile.bundle import load_bundle
from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.durable.manifest import entry_of, manifest_bytes
from tlcompile.errors.ancestry import OtherClassesError, OwnBaseError
from tlcompile.errors.run import NothingTrainsError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.finished import FILES
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.run.api import train
from tlcompile.run.cli import main
from tlcompile.run.folder import read_record, resolved, run_folder
from tlcompile.run.train import RunResult, train_recipe
from tlcompile.zoo.open import open_base

FIRST = """\
name: first
base: {model: digits_net}
freeze: {upto: block1}
remove: {fc: drop}
add:
  wide: {layer: linear, out: 24, activation: relu, inputs: flatten}
  sum: {layer: multiply, inputs: [wide, wide]}
  last: {layer: linear, out: classes, inputs: sum}
outputs: [last]
data: {dataset: digits, classes: ["5", "6", "7"], per_class: 8, split: {val: 0.5, seed: 3}}
fine_tune: {seed: 7, epochs: 2, batch_size: 8, optimizer: {name: adamw, lr: 3e-3}}
"""
THAW = """\
base: {run: runs/first}
freeze: {upto: stem}
fine_tune: {epochs: 1, batch_size: 8, optimizer: {name: sgd, lr: 1e-2}}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train FIRST once, in a folder where nothing else is."""
    place = tmp_path_factory.mktemp("first")
    path = place / "first.yaml"
    path.write_text(FIRST)
    recipe = load_recipe(path)
    train_recipe(recipe, place / run_folder(recipe))
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a copy of the folder with the finished run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(place: Path, name: str) -> Path:
    (found,) = place.glob(f"runs/{name}-*")
    return found


def written(text: str, name: str = "thaw.yaml") -> Path:
    Path(name).write_text(text)
    return Path(name)


def trained_on(text: str, name: str = "thaw.yaml", *overrides: str) -> tuple[Path, RunResult]:
    recipe = load_recipe(written(text, name), overrides)
    folder = run_folder(recipe)
    return folder, train_recipe(recipe, folder)


def outputs(model: CompiledModel) -> Tensor:
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        computed: Tensor = model.eval()(images)
    return computed


def test_without_edits_it_computes_what_the_run_computes(place: Path) -> None:
    again = compile_recipe(load_recipe(written(THAW)))
    bundle = load_bundle(run_of(place, "first"))
    assert torch.equal(outputs(again), outputs(bundle.model))
    assert list(again.state_dict()) == list(bundle.model.state_dict())
    assert [row.name for row in again.summary.vertices] == [
        row.name for row in bundle.model.summary.vertices
    ]
    assert not again.origins, "everything is the run's own"
    assert again.frozen.tensors == {"stem.conv.weight", "stem.conv.bias"}


@pytest.mark.parametrize("source", ["folder", "csv", "huggingface"])
def test_data_of_its_own_replace_those_of_the_run(place: Path, source: str) -> None:
    recipe = load_recipe(written(f"base: {{run: runs/first}}\ndata: {{{source}: mine}}\n"))
    assert getattr(recipe.data, source) == "mine"
    assert recipe.data.dataset is None


def test_task_data_and_seed_are_the_runs_and_nothing_else(place: Path) -> None:
    recipe = load_recipe(written("base: {run: runs/first}\n"))
    first = load_recipe("first.yaml")
    assert (recipe.data, recipe.task) == (first.data, first.task)
    assert recipe.fine_tune == Recipe(base=recipe.base).fine_tune.model_copy(update={"seed": 7})
    assert recipe.freeze.upto == ("head",)
    assert recipe.base.run == str(run_of(place, "first").relative_to(place)), "the whole name"
    assert recipe.name == "thaw"


def test_the_task_is_the_runs_also_in_python(place: Path) -> None:
    two = FIRST.replace('"5", "6", "7"', '"5", "6"').replace("name: first", "task: binary")
    trained_on(
        two.replace("{fc: drop}", "{fc: replace}").split("add:")[0]
        + """\
add: {fc: {layer: linear, out: classes, inputs: flatten}}
data: {dataset: digits, classes: ["5", "6"], per_class: 4}
fine_tune: {epochs: 1, batch_size: 4}
""",
        "yes_no.yaml",
    )
    assert load_recipe(written("base: {run: runs/yes_no}\n")).task == "binary"
    recipe = Recipe.model_validate({"base": {"run": "runs/yes_no"}, "head": "auto"})
    assert outputs(compile_recipe(recipe)).shape == (5, 1)


def test_images_are_prepared_as_the_run_prepared_them(place: Path) -> None:
    bundle = run_of(place, "first") / "bundle"
    record = json.loads((bundle / "record.json").read_text())
    record["preprocessing"]["mean"] = [0.125]
    (bundle / "record.json").write_text(json.dumps(record))
    sign(bundle)
    assert open_base(load_recipe(written(THAW)), load=False).preprocessing.mean == (0.125,)


def sign(bundle: Path) -> None:
    """Write a manifest that fits, as someone would who knows the format."""
    names = (*FILES, "frozen.safetensors")
    entries = {name: entry_of((bundle / name).read_bytes()) for name in names}
    (bundle / "manifest.json").write_bytes(manifest_bytes(entries))


def test_what_the_recipe_says_itself_wins(place: Path) -> None:
    own = load_recipe(written(THAW), ["data.per_class=3", "data.split.val=0.25"])
    assert (own.data.per_class, own.data.split.val, own.data.split.seed) == (3, 0.25, 3)
    assert own.data.classes == ("5", "6", "7")
    assert load_recipe("thaw.yaml", ["fine_tune.seed=1"]).fine_tune.seed == 1
    other = load_recipe("thaw.yaml", ["data.dataset=digits"])
    assert (other.data.classes, other.data.per_class) == (None, None), "another source"


def test_a_recipe_in_python_takes_the_same(place: Path) -> None:
    write = {"base": {"run": "runs/first"}, "freeze": {"upto": ["stem"]}}
    recipe = Recipe.model_validate({**write, "name": "python", "fine_tune": {"epochs": 1}})
    assert torch.equal(
        outputs(compile_recipe(recipe)), outputs(compile_recipe(load_recipe(written(THAW))))
    )
    _, history = train(recipe)
    assert len(history) == 1
    record = read_record(run_of(place, "python"))
    assert record is not None
    assert record["seed"] == 7
    assert record["classes"] == ["5", "6", "7"]


def test_names_are_the_bases_and_those_that_the_run_added(place: Path) -> None:
    text = """\
        base: {run: runs/first}
        freeze: {upto: sum}
        remove: {last: replace}
        add:
          last: {layer: linear, out: classes, inputs: sum}
          drop: {layer: dropout, p: 0.5, inputs: wide.linear, feeds: [wide.activation]}
        """
    recipe = load_recipe(written(text, "edit.yaml"))
    with pytest.raises(Exception, match=r"edit\.yaml:2:\d+: '.*' is .* lies in the frozen part"):
        prove_recipe(recipe)
    model = prove_recipe(load_recipe("edit.yaml", ["freeze.upto=flatten"]), num_classes=3)
    assert model.origins.keys() == {"last.weight", "last.bias"}
    assert [row.name for row in model.summary.vertices][-5:] == [
        "wide.linear", "drop", "wide.activation", "sum", "last",
    ]  # fmt: skip
    head = prove_recipe(load_recipe("edit.yaml", ["~remove", "~add", "freeze=head"]))
    assert {name for name, _ in head.trainable()} == {"last.weight", "last.bias"}
    stages = prove_recipe(load_recipe("edit.yaml", ["~remove", "~add", "freeze=stage1"]))
    assert "block2.conv.weight" in stages.frozen.tensors
    assert "block3.conv.weight" not in stages.frozen.tensors


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Return all of them: what the run trained, and what it left as it was."""
    trained, frozen = run / "bundle" / "model.safetensors", run / "bundle" / "frozen.safetensors"
    return load_file(trained) | (load_file(frozen) if frozen.exists() else {})


def test_thawing_by_hand_and_again(place: Path) -> None:
    """Frozen tensors are byte-equal to the run's before; what is thawed moves."""
    states = [weights(run_of(place, "first"))]
    points = (("second", "first", "stem"), ("third", "second", "none"))
    for name, base, point in points:
        text = THAW.replace("runs/first", f"runs/{base}").replace("stem", point)
        folder, result = trained_on(text, f"{name}.yaml")
        now = weights(folder)
        moved = {key for key in now if not torch.equal(now[key], states[-1][key])}
        frozen = set(result.model.frozen.tensors)
        assert moved == now.keys() - frozen
        assert len(frozen) == {"stem": 2, "none": 0}[point]
        states.append(now)
        assert torch.equal(outputs(load_bundle(folder).model), outputs(result.model))


def test_a_width_that_the_run_changed_can_be_changed_again(place: Path) -> None:
    """With overlap, what both widths have is the run's own, not its base's."""
    wide = (
        THAW.replace("{upto: stem}", "none") + "resize: {wide.linear: {out: 16, overlap: true}}\n"
    )
    folder, result = trained_on(wide, "narrow.yaml")
    own = weights(run_of(place, "first"))
    model = compile_recipe(load_recipe("narrow.yaml"))
    state = model.state_dict()
    assert torch.equal(state["wide.weight"], own["wide.weight"][:16])
    assert torch.equal(state["last.weight"], own["last.weight"][:, :16])
    wider = wide.replace("first", "narrow").replace("16", "30")
    again = compile_recipe(load_recipe(written(wider, "wider.yaml")))
    trained = result.model.state_dict()
    assert torch.equal(again.state_dict()["wide.weight"][:16], trained["wide.weight"])
    assert torch.equal(outputs(load_bundle(folder).model), outputs(result.model))


def test_it_lives_without_the_runs_that_it_came_from(place: Path) -> None:
    trained_on(THAW, "second.yaml")
    folder, result = trained_on(THAW.replace("first", "second"), "third.yaml")
    for name in ("first", "second"):
        shutil.rmtree(run_of(place, name))
    bundle = load_bundle(folder)
    assert torch.equal(outputs(bundle.model), outputs(result.model))
    runs = [Path(run["run"]).name.split("-")[0] for run in bundle.record["ancestry"]]
    assert runs == ["first", "second"], "oldest first"
    assert main(["evaluate", str(folder)]) == 0
    fourth = compile_recipe(load_recipe(written(THAW.replace("first", "third"))))
    assert torch.equal(outputs(fourth), outputs(result.model))


def test_the_record_names_its_base_and_the_digest_of_its_weights(place: Path) -> None:
    first = run_of(place, "first")
    folder, _ = trained_on(THAW)
    record = read_record(folder)
    assert record is not None
    files = [first / "bundle" / f"{name}.safetensors" for name in ("model", "frozen")]
    digests = " ".join(entry_of(file.read_bytes()).sha256 for file in files)
    assert record["base"]["run"] == str(first.relative_to(place))
    assert record["base"]["sha256"] == hashlib.sha256(digests.encode()).hexdigest()
    assert record["base"]["model"] == "digits_net"
    assert not (read_record(first) or {})["ancestry"]


def test_other_weights_of_the_base_are_another_run(place: Path) -> None:
    recipe = load_recipe(written(THAW))
    before = run_folder(recipe)
    moved = run_of(place, "first").rename(place / "runs" / "first-elsewhere")
    assert run_folder(load_recipe("thaw.yaml")) == before, "where it lies decides nothing"
    bundle = moved / "bundle"
    # Cloned, since what is loaded is mapped to the file that is written over.
    state = {n: t.clone() for n, t in load_file(bundle / "model.safetensors").items()}
    state["last.bias"] += 1
    save_file(state, bundle / "model.safetensors")
    sign(bundle)
    assert run_folder(load_recipe("thaw.yaml")) != before


def test_a_proof_reads_no_weights(place: Path) -> None:
    (run_of(place, "first") / "bundle" / "model.safetensors").write_bytes(b"")
    model = prove_recipe(load_recipe(written(THAW)))
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    assert main(["check", "thaw.yaml"]) == 0
    assert main(["plan", "thaw.yaml"]) == 0


def test_a_sweep_over_freeze_points(place: Path) -> None:
    written(THAW)
    assert main(["train", "thaw.yaml", "-m", "freeze.upto=stem,block1,none"]) == 0
    (manifest,) = place.glob("sweeps/thaw-*/manifest.csv")
    assert manifest.read_text().count("finished") == 3


def test_a_new_head_takes_other_classes(place: Path) -> None:
    text = THAW + 'data: {dataset: digits, classes: ["0", "1", "2", "3"], per_class: 5}\n'
    with pytest.raises(OtherClassesError) as caught:
        trained_on(text)
    said = str(caught.value)
    assert said.startswith("thaw.yaml:4:")
    assert "0, 1, 2, 3" in said
    assert "5, 6, 7" in said
    assert "head: auto" in said
    _, result = trained_on(text, "thaw.yaml", "head=auto")
    assert result.record["classes"] == ["0", "1", "2", "3"]
    assert result.model.origins == {"last.weight": "replaced", "last.bias": "replaced"}


def test_a_run_is_never_written_over_its_base(place: Path) -> None:
    recipe = load_recipe(written(THAW))
    before = {p: p.read_bytes() for p in place.glob("runs/**/*") if p.is_file()}
    with pytest.raises(OwnBaseError):
        train_recipe(recipe, run_of(place, "first"))
    assert before == {p: p.read_bytes() for p in place.glob("runs/**/*") if p.is_file()}


def test_everything_frozen_says_that_nothing_trains(place: Path) -> None:
    with pytest.raises(NothingTrainsError):
        trained_on(THAW, "thaw.yaml", "freeze=all")


BAD = {
    "unknown": ("runs/first", "runs/frist", 2, r"^r\.yaml:1:13: there is no run 'runs/frist'"),
    "several": ("runs/first", "runs/f", 2, r"^r\.yaml:1:13: 2 runs begin with 'runs/f'"),
    "unfinished": ("runs/first", "runs/begun", 2, r"^r\.yaml:1:13: .*\[unfinished-run\]"),
    "no run": ("runs/first", "data", 2, r"^r\.yaml:1:13: .*\[not-a-bundle\]"),
    "weights": (
        "runs/first}",
        "runs/first, weights: none}",
        2,
        r"^r\.yaml:1:25: base\.weights has",
    ),
    "size": ("runs/first}", "runs/first, size: 8}", 2, r"^r\.yaml:1:25: base\.size has no effect"),
    "both": ("runs/first}", "runs/first, model: digits_net}", 2, r"^r\.yaml:1:7: .*exactly one"),
    "neither": ("{run: runs/first}", "{size: 8}", 2, r"^r\.yaml:1:7: .*exactly one"),
    "a number": ("runs/first", "3", 2, r"^r\.yaml:1:13: "),
    "vertex": ("upto: stem", "upto: fc", 2, r"^r\.yaml:2:16: .*'runs/first-\w+'.*'fc'"),
    "damaged record": ("record.json", "", 74, r"^r\.yaml:1:13: .*record\.json' is not the file"),
    "damaged recipe": ("recipe.yaml", "", 74, r"^r\.yaml:1:13: .*recipe\.yaml' is not the file"),
    "damaged weights": (
        "model.safetensors",
        "",
        74,
        r"^r\.yaml:1:13: .*model\.safetensors' is not",
    ),
    "damaged sample": (
        "golden.safetensors",
        "",
        74,
        r"^r\.yaml:1:13: .*golden\.safetensors' is not",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_base_run(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    old, new, code, says = BAD[name]
    (place / "data").mkdir()
    (place / "runs" / "begun").mkdir()
    (place / "runs" / "begun" / "metrics.csv").write_text("epoch\n")
    if name == "several":
        shutil.copytree(run_of(place, "first"), place / "runs" / "f2")
    if new:
        assert old in THAW
        written(THAW.replace(old, new), "r.yaml")
    else:
        path = run_of(place, "first") / "bundle" / old
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        written(THAW, "r.yaml")
    assert main(["train", "r.yaml"]) == code
    said = capsys.readouterr().err
    assert re.search(says, said, re.M), said
    assert "Traceback" not in said
    assert "[unexpected]" not in said
    assert "\n  fix " in said
    assert not list(place.glob("runs/r-*"))


def test_the_resolved_recipe_can_be_read_again(place: Path) -> None:
    """Its own recipe.yaml names the run, without what has no effect beside it."""
    folder, _ = trained_on(THAW)
    again = load_recipe(folder / "recipe.yaml")
    assert resolved(again) == resolved(load_recipe("thaw.yaml"))
    assert json.loads((folder / "record.json").read_text())["state"] == "finished"


def test_check_names_other_classes_where_the_recipe_tells_them(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(THAW)
    assert main(["check", "thaw.yaml", "data.classes=[5,6,8]"]) == 2
    assert re.search(r"^command line:1:\d+: .*\[other-classes\]", capsys.readouterr().err, re.M)
    make_pictures(place / "more", classes=("5", "7", "6"), count=2)
    assert main(["check", "thaw.yaml", "data.folder=more"]) == 0, "the same names"
    (place / "more" / "6").rename(place / "more" / "8")
    assert main(["check", "thaw.yaml", "data.folder=more"]) == 2
    assert main(["check", "thaw.yaml", "data.folder=more", "head=auto"]) == 0
    sweep = ["train", "thaw.yaml", "data.classes=[5,6,8]", "-m", "freeze.upto=stem,block1"]
    capsys.readouterr()
    assert main(sweep) == 2
    assert "[other-classes]" in capsys.readouterr().err


def test_the_zoo_lists_the_names_of_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", str(run_of(place, "first")), "--json"]) == 0
    rows = {row["vertex"]: row["stage"] for row in json.loads(capsys.readouterr().out)}
    assert list(rows)[-4:] == ["wide.linear", "wide.activation", "sum", "last"]
    assert rows["last"] == "head"
    assert "fc" not in rows
