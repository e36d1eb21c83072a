"""What a recipe cannot ask for: slug, place and words. `@` marks the place that is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph.tiny import Branches, Chain, Residual, recipe_of
from parity.plain import plain_model
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.errors.edits import BadNameError, ClassesUnknownError
from tlcompile.graph.surgery import check_name
from tlcompile.model.compiled import CompiledModel

BASE = "base: {model: own, size: 64}\n"
SMALL = "base: {model: own, size: 16}\n"


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        x = x.flatten(1).reshape(-1, 96, 8)
        return self.fc(self.attention(x, x, x)[0].mean(1))


class Staged(nn.Module):
    """Its module `stage2` ends at stride 4, which is the computed stage1."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Conv2d(3, 4, 2, stride=2)
        self.stage2 = nn.Conv2d(4, 4, 2, stride=2)
        self.stage3 = nn.Conv2d(4, 4, 2, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.pool(self.stage3(self.stage2(self.stage1(x)))).flatten(1))


def refused(text: str, base: Callable[[], nn.Module]) -> tuple[TLCompileError, str]:
    """Compile; return the error, and the place that `@` marks."""
    before = text[: text.index("@")].splitlines()
    place = f"tiny.yaml:{len(before)}:{len(before[-1]) + 1}"
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(recipe_of(text.replace("@", "")), base=base(), num_classes=5)
    return caught.value, place


# (slug, recipe after its base, words that the message holds)
REFUSALS: list[tuple[str, str, list[str]]] = [
    ("unknown-vertex", "remove: {layer1.2: @drop}", ["did you mean 'layer1.1'?"]),
    ("unknown-vertex", "freeze: {upto: @layr1}", ["did you mean 'layer1'?"]),
    ("unknown-vertex", "freeze: {upto: none, only: [stem, @steam]}", ["'stem'"]),
    ("no-match", "freeze: {upto: [stem, @{match: 'layr*'}]}", ["'layr*'", "stands for any text"]),
    ("no-match", "freeze: {only: [stem, @{match: '*.bn3'}]}", ["'*.bn3'"]),
    ("no-effect", "freeze: {upto: @x}", ["'x' computes nothing", "name a vertex that reads it"]),
    ("unknown-vertex", "outputs: @nowhere", ["'nowhere'"]),
    ("unknown-vertex", "add: {extra: {layer: dropout, inputs: @flat}}", ["'flatten'"]),
    ("unknown-stage", "freeze: @stage4", ["no stage4", "write stage3"]),
    (  # T6
        "frozen-edit",
        "freeze: {upto: @fc}\nremove: {fc: replace}\nadd: {fc: {layer: linear, out: 3}}",
        ["'fc' is replaced", "freeze up to 'flatten'"],
    ),
    ("frozen-edit", "freeze: @layer1\nremove: {layer1.1: bypass}", ["is bypassed", "'layer1.0.relu_1'"]),
    ("frozen-edit", "freeze: @all", ["'fc' is replaced", "freeze up to 'head'"]),
    (  # random and frozen
        "frozen-edit",
        "freeze: @layer1\nadd: {norm: {layer: batch_norm, inputs: stem, feeds: layer1.0}}",
        ["'norm' is added", "freeze up to 'stem'"],
    ),
    ("dangling-reader", "remove: {down: @drop}", ["'avgpool' still reads it"]),
    ("dangling-reader", "remove: {layer1: @drop}", ["'down' still reads it"]),
    ("dangling-reader", "remove: {fc: @drop}", ["'output' still reads it"]),
    ("dangling-reader", "remove: {fc: drop}\noutputs: @fc", ["'outputs' still reads it"]),
    ("not-replaced", "remove: {fc: @replace}\nadd: {fd: {layer: flatten, inputs: down}}", ["add: fd"]),
    ("cannot-bypass", "remove: {layer1.0.add: @bypass}", ["layer1.0.bn2, stem"]),
    ("name-taken", "add: {down: @{layer: dropout, inputs: stem}}", ["'down'"]),
    ("inside-leaf", "add: {fc.extra: @{layer: dropout, inputs: flatten}}", ["a part of a Linear"]),
    (
        "cycle",
        ("add: {c: {layer: dropout, inputs: a}, a: @{layer: dropout, inputs: b},"
         " b: {layer: dropout, inputs: a}}"),
        ["a -> b -> a"],
    ),
    ("cycle", "add: {a: @{layer: dropout, inputs: a}}", ["a -> a"]),
    (
        "cycle",
        "add: {back: @{layer: average, inputs: [stem, layer1.0], feeds: layer1.0.conv1}}",
        ["back -> layer1.0.conv1"],
    ),
    ("wrong-inputs", "add: {extra: @{layer: dropout, inputs: [stem, down]}}", ["2 inputs", "1 input"]),
    ("wrong-inputs", "add: {extra: @{layer: dropout}}", ["found   none"]),
    ("no-effect", "freeze: @extra\nadd: {extra: {layer: linear, out: 3, inputs: flatten}}",
     ["'extra' is new", "freeze: head"]),
    ("no-effect", "freeze: {only: @extra}\nadd: {extra: {layer: linear, out: 3, inputs: flatten}}",
     ["'extra' is new"]),
    ("wrong-inputs", "add: {extra: @{layer: concat, inputs: stem}}", ["2 inputs or more"]),
    (
        "shape-mismatch",
        "remove: {fc: replace}\nadd: {fc: @{layer: linear, out: 3, inputs: down}}",
        ["down: (N, 12, 4, 4)", "(N, features)", "global_pool"],
    ),
    (
        "shape-mismatch",
        "add: {sum: @{layer: add, inputs: [stem, down]}}\noutputs: sum",
        ["stem: (N, 8, 8, 8)", "down: (N, 12, 4, 4)"],
    ),
    (  # T4
        "shape-mismatch",
        "head: keep\nfreeze: none\nremove: {down: @bypass}",
        ["'fc' (Linear)", "flatten: (N, 8)", "12"],
    ),
    ("no-effect", "add: {extra: @{layer: dropout, inputs: flatten}}", ["no output reads 'extra'"]),
    (
        "no-effect",
        "add: {extra: {layer: dropout, inputs: flatten, feeds: @stem}}",
        ["feeds: stem", "write feeds: fc"],
    ),
    ("no-effect", "outputs: @[]", ["names nothing", "drop the line"]),
    ("no-effect", "outputs: [fc, @fc]", ["named twice"]),
    ("no-effect", "freeze: {upto: @[]}", ["write freeze: none"]),
    ("no-effect", "freeze: {only: @fc}", ["replaced: head: auto", "drop fc"]),
    ("name-taken", "add: {a.b: {layer: dropout, inputs: stem}, a: @{layer: dropout, inputs: a.b}}",
     ["adds both 'a' and 'a.b'", "a_new"]),
    ("dangling-reader",
     "freeze: none\nremove: {layer1: replace}\nadd: {layer1: {layer: dropout, inputs: @layer1.0}}",
     ["'layer1.0.relu_1' is removed", "under the inputs of 'layer1'"]),
    ("bad-name", "add: {b ä: @{layer: dropout, inputs: flatten}}", ["call it 'b_new'"]),
    ("no-effect", "freeze: {only: @[]}", ["it names nothing"]),
    ("no-effect", "inputs: {meta: @{shape: [4]}}", ["reads 'meta'", "drop meta"]),
    ("name-taken", "inputs: {stem: @{shape: [4]}}", ["'stem'"]),
    ("bad-name", "inputs: {a.b: @{shape: [4]}}", ["'a.b'", "without dots"]),
    ("bad-name", "inputs: {class: @{shape: [4]}}", ["a word of Python"]),
    ("no-effect", "freeze: {upto: @[none, stem]}", ["`none` or `all`"]),
    ("no-effect", "head: @auto\nfreeze: none\noutputs: [down]", ["head: auto", "drop the line"]),
    (
        "no-effect",
        "head: @auto\nremove: {fc: replace}\nadd: {fc: {layer: linear, out: classes}}",
        ["removes the classifier 'fc'"],
    ),
    (  # T9
        "output-activation",
        "remove: {fc: replace}\nadd: {fc: {layer: linear, out: classes, activation: @relu}}",
        ["drop `activation` from 'fc'"],
    ),
    (
        "output-activation",
        "add: {p: {layer: activation, name: @softmax, inputs: fc}}\noutputs: p",
        ["'p' ends in softmax", "write outputs: [fc]"],
    ),
    ("bad-name", "add: {class: @{layer: dropout, inputs: flatten}}", ["a word of Python"]),
    ("bad-name", "add: {forward: @{layer: dropout, inputs: flatten}}", ["torch.nn.Module"]),
    ("bad-name", "add: {training: @{layer: dropout, inputs: flatten}}", ["'training'"]),
    ("bad-name", "add: {a b: @{layer: dropout, inputs: flatten}}", ["the part 'a b'"]),
]  # fmt: skip


@pytest.mark.parametrize(("slug", "text", "words"), REFUSALS)
def test_refusal(slug: str, text: str, words: list[str]) -> None:
    error, place = refused(SMALL + text, Residual)
    assert error.slug == slug
    assert str(error.where) == place
    message = str(error)
    assert all(word in message for word in words), message


OTHERS: list[tuple[str, Callable[[], nn.Module], str, list[str]]] = [
    (  # T2
        "ambiguous-name",
        lambda: Staged(),
        "freeze: {upto: @stage2}",
        ["{upto: {vertex: stage2}}", "{upto: {stage: 2}}", "(N, 4, 16, 16)", "(N, 4, 8, 8)"],
    ),
    (
        "unknown-stage",
        lambda: plain_model("squeezenet1_0"),
        "freeze: {upto: @stage4}",
        ["no stage4", "stage1, stage2, stage3", "write stage3"],
    ),
    (  # T4
        "shape-mismatch",
        lambda: plain_model("resnet18"),
        "head: keep\nremove: {layer4: @bypass}",
        ["(N, 256)", "512"],
    ),
    (
        "bad-name",
        lambda: plain_model("resnet18"),
        "add: {inplanes: @{layer: dropout, inputs: flatten, feeds: fc}}",
        ["an attribute of the ResNet"],
    ),
]


@pytest.mark.parametrize(("slug", "base", "text", "words"), OTHERS)
def test_refusal_of_a_known_model(
    slug: str, base: Callable[[], nn.Module], text: str, words: list[str]
) -> None:
    error, place = refused(BASE + text, base)
    assert (error.slug, str(error.where)) == (slug, place)
    message = str(error)
    assert all(word in message for word in words), message


def test_a_name_inside_a_module_that_is_one_vertex() -> None:
    error, place = refused(SMALL + "freeze: {upto: @attention.out_proj}", Attention)
    assert (error.slug, str(error.where)) == ("inside-leaf", place)
    assert "write 'attention'" in str(error)


def test_problems_come_together_in_file_order() -> None:
    text = SMALL + "freeze: {upto: @layr1}\nremove: {fc: replace, layer9: drop}"
    error, _ = refused(text, Residual)
    assert isinstance(error, Problems)
    slugs = [one.slug for one in error.errors]
    assert slugs == ["unknown-vertex", "not-replaced", "unknown-vertex"]


@pytest.mark.parametrize("name", ["", "a..b", "9a", "ä", "fc.None", "self", "state_dict", ".fc"])
def test_bad_names(name: str) -> None:
    with pytest.raises(BadNameError):
        check_name(name)


# What is close to a refusal and works


def compiled(text: str, base: Callable[[], nn.Module] = Residual) -> CompiledModel:
    return compile_recipe(recipe_of(SMALL + text), base=base(), num_classes=5)


X = torch.zeros(2, 3, 16, 16)


def test_bypass_before_the_classifier_gives_it_another_width() -> None:
    model = compiled("remove: {down: bypass}")  # T4
    assert model.get_parameter("fc.weight").shape == (5, 8)


def test_a_replaced_layer_before_the_classifier_gives_it_another_width() -> None:
    model = compiled(
        "freeze: layer1\nremove: {down: replace}\nadd: {down: {layer: conv2d, out: 7}}"
    )
    assert model.get_parameter("fc.weight").shape == (5, 7)
    assert model.frozen.tensors >= {"layer1.1.conv2.weight"}
    assert model.origins["down.weight"] == "replaced"


def test_an_inserted_layer_is_read_by_what_it_feeds() -> None:
    model = compiled("add: {drop: {layer: dropout, p: 0.3, inputs: flatten, feeds: fc}}")  # T5
    assert next(row for row in model.summary.vertices if row.name == "fc").reads == ("drop",)


def test_several_outputs_are_a_dict_and_one_is_a_tensor() -> None:
    several = compiled("freeze: none\noutputs: [fc, layer1]")(X)  # T9
    assert list(several) == ["fc", "layer1"]
    assert isinstance(compiled("freeze: none\noutputs: fc")(X), Tensor)


def test_a_layer_with_an_activation_is_a_region() -> None:
    text = "remove: {fc: replace}\nadd:\n"  # T11
    text += "  fc3: {layer: linear, out: 6, activation: relu, dropout: 0.5, inputs: flatten}\n"
    text += "  fc: {layer: linear, out: classes, inputs: fc3}"
    model = compiled(text)
    names = [row.name for row in model.summary.vertices][-4:]
    assert names == ["fc3.linear", "fc3.activation", "fc3.dropout", "fc"]
    assert model.origins["fc3.weight"] == "added"
    assert {"fc3.weight", "fc3.bias"} < set(model.state_dict())
    assert model(X).shape == (2, 5)


@pytest.mark.parametrize("out", ["classes", "5"])
def test_the_defaults_of_new_layers_stay_off_the_output(out: str) -> None:
    tune = "fine_tune: {activation: relu, dropout: 0.5}\nremove: {fc: replace}\n"
    add = "add: {neck: {layer: linear, out: 6, inputs: drop}, "
    model = compiled(tune + add + f"fc: {{layer: linear, out: {out}, inputs: neck}}}}", Chain)
    names = [row.name for row in model.summary.vertices]
    assert names[-4:] == ["neck.linear", "neck.activation", "neck.dropout", "fc"]


def test_a_replaced_region_at_the_end_is_the_output() -> None:
    text = "fine_tune: {activation: relu}\nremove: {classifier: replace, flatten: bypass}\nadd:\n"
    text += "  pool: {layer: global_pool, inputs: cat}\n  flat: {layer: flatten, inputs: pool}\n"
    text += "  classifier: {layer: linear, out: 5, inputs: flat}"
    model = compiled(text, Branches)
    assert model(X).shape == (2, 5)


def test_both_ways_out_of_an_ambiguous_stage() -> None:
    ends = []
    for point in ("{vertex: stage2}", "{stage: 2}"):
        recipe = recipe_of(BASE + f"freeze: {{upto: [{point}]}}")
        ends.append(max(compile_recipe(recipe, base=Staged(), num_classes=2).frozen.modules))
    assert ends == ["stage2", "stage3"]


def test_a_stage_and_a_module_that_end_together_are_not_ambiguous() -> None:
    recipe = recipe_of(BASE + "freeze: stage2")
    model = compile_recipe(recipe, base=plain_model("shufflenet_v2_x1_0"), num_classes=2)
    assert model.boundary[0].shape == (116, 8, 8)


def test_nobody_says_how_many_classes_there_are() -> None:
    """Two outputs where the module had ten would be a silent guess."""
    with pytest.raises(ClassesUnknownError, match="head: auto"):
        compile_recipe(recipe_of(SMALL + "freeze: none\n"), base=Chain())
    kept = compile_recipe(recipe_of(SMALL + "head: keep\nfreeze: none\n"), base=Chain())
    assert kept.summary.vertices[-1].shape == "(N, 10)"
    named = recipe_of(SMALL + "data: {folder: nowhere, classes: [a, b, c]}\n")
    assert compile_recipe(named, base=Chain()).summary.vertices[-1].shape == "(N, 3)"


def test_images_that_are_too_small_for_the_base_are_told_at_their_size() -> None:
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(recipe_of("base: {model: own, size: 10}"), base=plain_model("squeezenet1_0"))
    assert str(caught.value).startswith("tiny.yaml:1:26: 'features.6' (MaxPool2d)")
    assert "larger images with base.size" in caught.value.fix()


def test_channels_that_do_not_fit_are_told_by_their_number() -> None:
    error, place = refused(
        f"{BASE}remove: {{features.3: @bypass}}", lambda: plain_model("squeezenet1_0")
    )
    assert str(error.where) == place
    assert error.facts()["wanted"] == "128 channels"
