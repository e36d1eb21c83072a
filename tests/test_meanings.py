"""One meaning each: the tricky recipes T1 to T17, settled before anything was built. Graphs."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from graph.tiny import Branches, Chain, Residual, recipe_of
from parity.plain import leaves
from passes.test_refusals import Staged
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.model.compiled import CompiledModel
from tlcompile.passes.plan import num_logits
from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.overrides import parse_override
from tlcompile.recipe.yaml_reader import read_recipe_text

FILES = ("test_meanings", "test_meanings_of_runs")
SMALL = "base: {model: own, size: 16}\n"
X = torch.zeros(2, 3, 16, 16)


def zoo(model: str, text: str, classes: int = 5) -> CompiledModel:
    """Prove a recipe on a model of torchvision: its names and shapes, without weights."""
    return prove_recipe(recipe_of(f"base: {{model: {model}}}\n{text}"), num_classes=classes)


def own(text: str, base: nn.Module, classes: int | None = 5) -> CompiledModel:
    return compile_recipe(recipe_of(SMALL + text), base=base, num_classes=classes)


def shape(model: CompiledModel, vertex: str) -> str:
    return next(row.shape for row in model.summary.vertices if row.name == vertex)


def refused(text: str, base: Any, **given: Any) -> str:
    with pytest.raises(TLCompileError) as caught:
        base(text, **given) if isinstance(base, type(zoo)) else own(text, base)
    return str(caught.value)


def on(model: str) -> Any:
    return lambda text: zoo(model, text)


def test_t02_a_name_that_is_a_stage_and_a_vertex_elsewhere_is_refused() -> None:
    message = refused("freeze: {upto: stage2}", Staged(), size=64)
    assert "{upto: {vertex: stage2}}" in message
    assert "{upto: {stage: 2}}" in message


def test_t02_where_both_end_together_nothing_is_ambiguous() -> None:
    """shufflenet's module stage2 ends at 28x28; so does the computed stage2 at 224 pixels."""
    boundaries = [
        zoo("shufflenet_v2_x1_0", f"freeze: {point}\n").boundary
        for point in ("stage2", "{upto: {vertex: stage2}}", "{upto: {stage: 2}}")
    ]
    assert [b[0].shape for b in boundaries] == [(116, 28, 28)] * 3


class Keywords(nn.Module):
    """Its vertices are called as the keywords of a freeze point, as `head` is in swin."""

    def __init__(self) -> None:
        super().__init__()
        self.all = nn.Conv2d(3, 4, 3)
        self.none = nn.Conv2d(4, 4, 3)
        self.head = nn.Conv2d(4, 4, 12)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.head(self.none(self.all(x))).flatten(1))


@pytest.mark.parametrize(
    ("point", "trains"),
    [
        ("head", {"fc"}),
        ("none", {"all", "none", "head", "fc"}),
        ("all", set()),
        ("{upto: {vertex: head}}", {"fc"}),
        ("{upto: {vertex: none}}", {"head", "fc"}),
        ("{upto: {vertex: all}}", {"none", "head", "fc"}),
    ],
)
def test_t02_head_none_and_all_are_always_the_keyword(point: str, trains: set[str]) -> None:
    model = own(f"head: keep\nfreeze: {point}\n", Keywords())
    assert {name.split(".")[0] for name, _ in model.trainable()} == trains


T3 = "head: keep\nfreeze: none\nresize: {layer4.1.conv2: {out: 256}}\n"


def test_t03_a_member_of_a_residual_sum_is_not_resized_alone() -> None:
    message = refused(T3, on("resnet18"))
    assert "layer4.1.add" in message
    for member in ("layer4.0.conv2", "layer4.0.downsample.0", "layer4.1.conv2"):
        assert member in message
    assert "256" in message
    assert "512" in message
    pasted = re.search(r"fix +write\s+(resize: .*)", message)
    assert pasted, message
    model = zoo("resnet18", f"head: keep\nfreeze: none\n{pasted[1]}\n")
    assert shape(model, "layer4.1.add") == "(N, 256, 7, 7)"
    assert model.get_parameter("fc.weight").shape == (1000, 256)  # readers downstream follow


def test_t04_an_edit_that_leaves_the_classifier_alone() -> None:
    model = zoo("resnet18", "remove: {layer4: bypass}\nfreeze: layer3\n")
    assert model.get_parameter("fc.weight").shape == (5, 256)
    message = refused("head: keep\nfreeze: none\nremove: {layer4: bypass}\n", on("resnet18"))
    assert "(N, 256)" in message
    assert "512" in message
    assert "layer4.1.add" in refused("remove: {layer4.1.add: bypass}\n", on("resnet18"))


def test_t05_an_inserted_layer() -> None:
    model = own("add: {drop2: {layer: dropout, p: 0.3, inputs: flatten, feeds: fc}}\n", Residual())
    assert {row.name: row.reads for row in model.summary.vertices}["fc"] == ("drop2",)
    text = "add: {drop2: {layer: dropout, p: 0.3, inputs: flatten}}\n"
    assert "no output reads 'drop2'" in refused(text, Residual())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "freeze: fc\nremove: {fc: replace}\nadd: {fc: {layer: linear, out: 5}}\n",
            ["'fc' is replaced by this recipe", "freeze up to 'flatten'"],
        ),
        ("freeze: layer1\nresize: {stem: {out: 4}}\n", ["stem"]),
        ("freeze: down\nresize: {stem: {out: 4}}\n", ["stem"]),
        (
            "freeze: layer9\nadd: {layer9: {layer: dropout, inputs: flatten, feeds: fc}}\n",
            ["layer9"],
        ),
    ],
)
def test_t06_what_is_new_cannot_be_frozen(text: str, words: list[str]) -> None:
    message = refused(text, Residual())
    assert all(word in message for word in words), message


def numbered() -> nn.Module:
    """Return a network with vertices 1.1 and 1.10."""
    inner = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(11)))
    end = nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))
    return nn.Sequential(nn.Conv2d(3, 3, 1), inner, nn.Dropout(), end, nn.Linear(3, 4))


@pytest.mark.parametrize(("point", "count"), [("1.1", 3), ("1.10", 12), ("'1.10'", 12), ("0", 1)])
@pytest.mark.parametrize("way", ["file", "override"])
def test_t08_names_that_are_numbers_are_text(way: str, point: str, count: int) -> None:
    text = f"{SMALL}remove: {{2: bypass}}\n"
    if way == "file":
        recipe = recipe_of(f"{text}freeze: {{upto: {point}}}\n")
    else:
        root = spell_out(read_recipe_text(f"{text}freeze: head\n", "tiny.yaml"))
        recipe = recipe_from(root, [parse_override(f"freeze.upto={point}")], "tiny")
    model = compile_recipe(recipe, base=numbered(), num_classes=2)
    assert len({name.rpartition(".")[0] for name in model.frozen.tensors}) == count
    assert "2" in model.summary.dropped


def test_t09_outputs() -> None:
    assert isinstance(own("freeze: none\noutputs: [fc]\n", Residual())(X), Tensor)
    several = own("freeze: none\noutputs: [layer1, fc]\n", Residual())(X)
    assert type(several) is dict
    assert list(several) == ["layer1", "fc"]


def test_t09_without_outputs_the_base_s_own_structure() -> None:
    x = torch.randn(2, 3, 224, 224, device="meta")
    kept = "head: keep\nfreeze: none\n"
    found = prove_recipe(recipe_of(f"base: {{model: googlenet, weights: none}}\n{kept}")).train()(x)
    assert type(found).__name__ == "GoogLeNetOutputs"
    assert len(found) == 3


@pytest.mark.parametrize("layer", ["linear, activation: softmax", "linear, activation: relu"])
def test_t09_an_activation_on_an_output_is_refused(layer: str) -> None:
    text = f"remove: {{fc: replace}}\nadd: {{fc: {{layer: {layer}, out: classes}}}}\n"
    assert "drop `activation` from 'fc'" in refused(text, Residual())


@pytest.mark.parametrize(
    ("task", "logits"),
    [("classification", 5), ("binary", 1), ("multilabel", 5), ("regression", 5)],
)
@pytest.mark.parametrize(
    "edit", ["", "remove: {fc: replace}\nadd: {fc: {layer: linear, out: classes}}\n"]
)
def test_t10_as_many_logits_as_the_task_needs(task: str, logits: int, edit: str) -> None:
    model = own(f"task: {task}\n{edit}", Chain(), None if task == "binary" else 5)
    assert model(X).shape == (2, logits)
    assert num_logits(recipe_of(f"{SMALL}task: {task}\n"), 5) == logits


def test_t11_a_layer_with_an_activation_is_a_region() -> None:
    text = "freeze: none\nadd:\n"
    text += "  fc3: {layer: linear, out: 12, activation: relu, norm: batch, dropout: 0.5,"
    text += " inputs: flatten, feeds: fc}\n"
    model = own(text, Residual())
    rows = {row.name: row for row in model.summary.vertices}
    kinds = [row.kind for name, row in rows.items() if name.startswith("fc3.")]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Dropout"]
    assert {"fc3.weight", "fc3.bias"} < set(model.state_dict())
    assert rows["fc"].reads == ("fc3.dropout",)
    read = own(
        text + "  more: {layer: scale, by: 2, inputs: fc3}\noutputs: [fc, more]\n", Residual()
    )
    assert {r.name: r.reads for r in read.summary.vertices}["more"] == ("fc3.dropout",)


def test_t14_replace_drop_and_bypass_are_the_words_of_remove() -> None:
    replaced = own(
        "freeze: layer1\nremove: {down: replace}\nadd: {down: {layer: conv2d, out: 7}}\n",
        Residual(),
    )
    assert {r.name: r.reads for r in replaced.summary.vertices}["down"] == ("layer1.1.relu_1",)
    assert "add" in refused("remove: {down: replace}\n", Residual())
    assert own("remove: {left: drop}\nfreeze: right\n", Branches())(X).shape == (2, 5)
    assert own("freeze: stem\nremove: {layer1: bypass}\n", Residual())(X).shape == (2, 5)
    with pytest.raises(TLCompileError, match="keep"):
        recipe_of(f"{SMALL}remove: {{fc: keep}}\n")


def test_t14_overlap_keeps_what_both_widths_have() -> None:
    base = Residual()
    old = base.down.weight.detach().clone()
    model = own("freeze: layer1\nresize: {down: {out: 9, overlap: true}}\n", base)
    assert torch.equal(model.get_parameter("down.weight"), old[:9])
    fresh = own("freeze: layer1\nresize: {down: {out: 9}}\n", base)
    assert not torch.equal(fresh.get_parameter("down.weight"), old[:9])


def test_t16_the_head_of_vgg16_is_its_last_layer_and_the_dropout_before_it() -> None:
    model = zoo("vgg16", "freeze: head\n")
    assert sum(p.numel() for _, p in model.trainable()) == 4096 * 5 + 5
    names = [row.name for row in model.summary.vertices if not row.frozen]
    assert names == ["classifier.5", "classifier.6"]
    assert model.train().get_submodule("classifier.5").training
    assert not model.get_submodule("classifier.2").training


def test_t16_head_auto_drops_activations_and_auxiliary_heads() -> None:
    squeezed = zoo("squeezenet1_0", "")
    assert "classifier.2" in squeezed.summary.dropped  # a ReLU
    assert squeezed.get_parameter("classifier.1.weight").shape == (5, 512, 1, 1)
    inception = zoo("googlenet", "freeze: inception4a\n").train()
    x = torch.randn(2, 3, 224, 224, device="meta")
    assert [leaf.shape for leaf in leaves(inception(x))] == [(2, 5)]


def test_t17_defaults_nobody_wrote_down() -> None:
    recipe = recipe_of("base: {model: resnet18}\ndata: {folder: anywhere}\n")
    tune, data = recipe.fine_tune, recipe.data
    assert recipe.base.weights == "default"
    assert (tune.optimizer.name, tune.schedule.name) == ("adamw", "cosine")
    assert (tune.epochs, tune.batch_size, tune.seed) == (10, 32, 42)
    assert (tune.monitor, tune.early_stop, tune.phases) == (None, None, None)
    assert (data.split.val, data.split.seed) == (0.2, 0)
    assert (data.augment.train, recipe.freeze.upto, recipe.task) == (
        (),
        ("head",),
        "classification",
    )
    message = refused("freeze: layer4\n", lambda text: prove_recipe(
        recipe_of(f"base: {{model: resnet18, weights: none}}\n{text}")
    ))  # fmt: skip
    assert "weights" in message


def test_every_meaning_has_a_test() -> None:
    texts = [Path(__file__).with_name(f"{name}.py").read_text() for name in FILES]
    numbers = re.findall(r"^def test_t(\d\d)_", "\n".join(texts), re.MULTILINE)
    assert set(map(int, numbers)) == set(range(1, 18))
