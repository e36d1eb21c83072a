"""Faults of DL4J's builders, each named after the fault, with what is right. List: docs/dl4j.md."""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph.tiny import recipe_of
from torch import Tensor, nn

from parity.dl4j import chain, compiled, fit, labelled, moved, tensors, unequal
from parity.plain import differences
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.refuse import refuse_untrainable


def refusal(text: str, base: nn.Module, **given: Any) -> TLCompileError:
    """Compile; return the error, which has a place in the recipe."""
    with pytest.raises(TLCompileError) as caught:
        compiled(text, base, **given)
    error = caught.value
    for one in error.errors if isinstance(error, Problems) else (error,):
        assert one.where is not None
    return error


def test_unknown_names_are_ignored() -> None:
    """#8991: DL4J says nothing of a name that it does not have; here all are named at once."""
    text = "head: keep\nfreeze: {upto: [layer0, layre1], only: layer9}\nremove: {act7: bypass}\n"
    error = refusal(text, chain(4, 5, 3))
    assert isinstance(error, Problems)
    assert [one.slug for one in error.errors] == ["unknown-vertex"] * 3
    message = str(error)
    assert "'layre1'" in message
    assert "did you mean 'layer1'?" in message
    assert "'act7'" in message
    assert "'layer9'" in message


@pytest.mark.parametrize(
    "text", ["outputs: @nothing", "add: {a: {layer: dropout, inputs: @nothing}}\noutputs: a"]
)
def test_unknown_names_are_ignored_where_they_are_read(text: str) -> None:
    assert "'nothing'" in str(refusal(f"freeze: none\n{text.replace('@', '')}\n", chain(4, 5, 3)))


ADDED = [
    "  layer2: {layer: linear, out: 7}\n",
    "  drop: {layer: dropout, inputs: act2, feeds: layer3}\n",
    "  last: {layer: linear, out: classes, inputs: layer3}\n",
]
SECTIONS = [
    "freeze: {upto: act1}\n",
    "remove: {layer2: replace, act3: bypass}\n",
    f"add:\n{''.join(ADDED)}",
    "outputs: [last]\n",
    "fine_tune: {seed: 3, init: xavier_normal, activation: relu}\n",
]
KEYS = [
    f"remove: {{act3: bypass, layer2: replace}}\nadd:\n{''.join(added)}"
    for added in itertools.permutations(ADDED)
]
EDITED = (4, 6, 5, 7, 4, 3)


def test_config_called_last_discards_edits() -> None:
    """#8992: nothing depends on the order in the file, neither of sections nor of keys in them."""
    base = chain(*EDITED)
    first = compiled("".join(SECTIONS), base, classes=2)
    origins = {row.name: row.origin for row in first.tensors()}
    assert {origins[f"{name}.weight"] for name in ("layer0", "layer2", "last")} == {
        "loaded", "replaced", "added"
    }  # fmt: skip
    texts = ["".join(order) for order in itertools.permutations(SECTIONS)][::7]
    texts += [SECTIONS[0] + "".join(SECTIONS[3:]) + keys for keys in KEYS]
    assert len(set(texts)) == 18 + 6
    x = torch.randn(3, 4)
    for text in texts:
        model = compiled(text, base, classes=2)
        assert not unequal(model, first)
        assert model.frozen == first.frozen
        assert torch.equal(model.eval()(x), first.eval()(x))


def test_settings_are_wanted_before_a_layer_is_added() -> None:
    """DL4J fails with a null pointer without a configuration; ours has defaults, and they train."""
    base = chain(4, 5, 3)
    model = compiled("remove: {layer1: replace}\nadd: {layer1: {layer: linear, out: 2}}\n", base)
    before = tensors(model)
    fit(model, labelled(6, 4, classes=2))
    assert moved(model, before) == {"layer1"}  # the default freeze point is `head`


class Maps(nn.Module):
    """Two convolutions with pooling, flattened, a dense layer: widths change on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3)
        self.pool = nn.MaxPool2d(2)
        self.conv1 = nn.Conv2d(4, 6, 3)
        self.fc = nn.Linear(6 * 5 * 5, 3)

    def forward(self, input: Tensor) -> Tensor:
        return self.fc(self.conv1(self.pool(self.conv0(input))).flatten(1))


def test_no_pass_through_pooling() -> None:
    base = Maps()
    model = compiled(
        "freeze: none\nhead: keep\nresize: {conv0: {out: 7}}\n", base, shape=(3, 16, 16)
    )
    assert model.get_parameter("conv1.weight").shape == (6, 7, 3, 3)
    assert not differences(tensors(model, "fc"), tensors(base, "fc"))
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)


def test_wrong_width_after_flatten() -> None:
    """DL4J gives the dense layer as many inputs as there are channels, without height and width."""
    for edit in (
        "resize: {conv1: {out: 8}}\n",
        "remove: {conv1: replace}\nadd: {conv1: {layer: conv2d, out: 8}}\n",
    ):
        model = compiled(f"freeze: conv0\n{edit}", Maps(), shape=(3, 16, 16), classes=2)
        assert model.get_parameter("fc.weight").shape == (2, 8 * 5 * 5)
        assert model(torch.randn(2, 3, 16, 16)).shape == (2, 2)


class Merge(nn.Module):
    """A layer that a concatenation, a second layer and a normalisation read."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.norm = nn.BatchNorm1d(5)
        self.one, self.two = nn.Linear(5, 3), nn.Linear(8, 3)

    def forward(self, input: Tensor) -> Tensor:
        first = self.norm(self.first(input))
        return self.two(torch.cat([first, self.one(first)], 1))


def test_fan_out_into_a_merge_is_refused() -> None:
    """All readers follow, through a normalisation; of what reads the merge the right columns."""
    base = Merge()
    text = "freeze: none\nhead: keep\nresize: {first: {out: 6, overlap: true}}\n"
    model = compiled(text, base)
    shapes = {name: tuple(t.shape) for name, t in model.state_dict().items() if "weight" in name}
    assert shapes == {
        "first.weight": (6, 4), "norm.weight": (6,), "one.weight": (3, 6), "two.weight": (3, 9)
    }  # fmt: skip
    two, old = model.get_parameter("two.weight"), base.two.weight
    assert torch.equal(two[:, :5], old[:, :5])
    assert torch.equal(two[:, 6:], old[:, 5:])
    assert torch.equal(model.get_parameter("first.weight")[:5], base.first.weight)
    assert model(torch.randn(2, 4)).shape == (2, 3)


def test_readers_of_a_changed_width_ignore_the_configuration() -> None:
    """A reader takes the resize's own word for it, else fine_tune's."""
    for line, wanted in (("out: 6", "zeros"), ("out: 6, fan_out_init: ones", "ones")):
        text = f"freeze: none\nhead: keep\nfine_tune: {{init: zeros}}\nresize: {{layer0: {{{line}}}}}\n"
        model = compiled(text, chain(4, 5, 3))
        assert not model.get_parameter("layer0.weight").any()
        inits = {row.name: row.init for row in model.tensors()}
        assert inits["layer1.weight"] == wanted


def test_widths_of_added_layers_are_never_inferred() -> None:
    text = "freeze: conv0\nadd: {bn: {layer: batch_norm, inputs: conv1, feeds: flatten}}\n"
    model = compiled(text, Maps(), shape=(3, 16, 16), classes=2)
    assert model.get_parameter("bn.weight").shape == (6,)  # #5152: DL4J's has nIn = nOut = 0


def test_a_stale_input_width_is_kept() -> None:
    """DL4J keeps the old width of a reader and fails when it runs; ours names both."""
    text = "head: keep\nfreeze: none\nremove: {conv1: replace}\nadd: {conv1: {layer: conv2d, out: 8}}\n"
    message = str(refusal(text, Maps(), shape=(3, 16, 16)))
    assert "(N, 200)" in message
    assert "150" in message


@pytest.mark.parametrize(
    "text",
    [
        "freeze: layer1\nremove: {layer1: replace}\nadd: {layer1: {layer: linear, out: 5}}\n",
        "freeze: act1\nremove: {layer1: replace}\nadd: {layer1: {layer: linear, out: 5}}\n",
        "freeze: act1\nadd: {a: {layer: linear, out: 6, inputs: act0, feeds: layer1}}\n",
        "freeze: all\nhead: auto\n",
    ],
)
def test_random_and_frozen_goes_unnoticed(text: str) -> None:
    error = refusal(text, chain(*EDITED), classes=2)
    assert error.slug == "frozen-edit"
    assert "freeze up to" in str(error)


def test_frozen_features_are_changed_by_an_activation_override() -> None:
    base = chain(4, 5, 3, 3, between=nn.Tanh)
    text = "freeze: act1\nfine_tune: {activation: leaky_relu, dropout: 0.5, init: zeros}\n"
    text += "remove: {layer2: replace}\nadd: {layer2: {layer: linear, out: 4, inputs: act1},"
    text += " fc: {layer: linear, out: classes, inputs: layer2}}\noutputs: [fc]\n"
    model = compiled(text, base, classes=2)
    x = torch.randn(6, 4)
    assert torch.equal(model.train().prefix(x)[0], base[:4](x))
    assert [row.kind for row in model.summary.vertices[1:5]] == ["Linear", "Tanh"] * 2


def test_no_unfreeze() -> None:
    """Names of tensors do not depend on the freeze point, so another one is another recipe."""
    base = chain(4, 5, 3, 3)
    first = compiled("head: keep\nfreeze: act1\n", base)
    fit(first, labelled(10, 4, steps=3))
    thawed = compiled("head: keep\nfreeze: none\n", base)
    thawed.load_state_dict(first.state_dict())
    before = tensors(thawed)
    fit(thawed, labelled(10, 4, steps=3))
    assert moved(thawed, before) == {"layer0", "layer1", "layer2"}


def test_freezing_twice_wraps_twice() -> None:
    base = chain(4, 5, 3, 3)
    once = compiled("head: keep\nfreeze: act1\n", base)
    twice = compiled("head: keep\nfreeze: {upto: [layer0, act1, layer1], only: [layer1]}\n", base)
    assert twice.frozen == once.frozen
    assert list(twice.state_dict()) == list(base.state_dict())


class Scaled(nn.Module):
    """A vertex of the graph that is a parameter, without a layer around it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.randn(4))
        self.out = nn.Linear(4, 3)

    def forward(self, input: Tensor) -> Tensor:
        return self.out(self.first(input) * self.scale)


def test_vertices_with_parameters_are_initialised_again() -> None:
    base = Scaled()
    text = "freeze: none\nremove: {out: replace}\nadd: {out: {layer: linear, out: 2}}\n"
    model = compiled(text, base)
    assert torch.equal(model.get_parameter("scale"), base.scale)
    x = torch.randn(3, 4)
    plain = nn.functional.linear(base.first(x) * base.scale, *model.out.parameters())
    assert torch.equal(model(x), plain)


def test_removal_alone_copies_a_flat_vector() -> None:
    """Where a vertex in the middle goes, the rest keeps its own tensors, by name."""
    base = chain(4, 4, 4, 4, 3)
    model = compiled("head: keep\nfreeze: none\nremove: {layer1: bypass, act1: bypass}\n", base)
    kept = tensors(base, "layer0", "layer2", "layer3")
    assert not differences(tensors(model), kept)
    x = torch.randn(2, 4)
    assert torch.equal(model(x), base[4:](base[:2](x)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("remove: {layer1: drop}\n", "'act1' still reads it"),
        ("remove: {layer2: drop}\n", "'output' still reads it"),
        ("remove: {layer1: replace}\n", "replace"),
    ],
)
def test_dangling_connections_are_found_late(text: str, words: str) -> None:
    assert words in str(refusal(f"freeze: none\nhead: keep\n{text}", chain(4, 5, 3, 3)))


def test_a_second_removal_silently_overrides_the_first() -> None:
    base = nn.Sequential(OrderedDict(body=chain(4, 5, 4), fc=nn.Linear(4, 3)))
    text = "freeze: none\nremove: {body: bypass, body.act0: bypass}\n"
    assert "another line removes 'body.act0' already" in str(refusal(text, base))


def test_nothing_is_left_where_every_layer_is_new() -> None:
    base = chain(4, 5, 3)
    text = "freeze: none\nremove: {layer0: drop, act0: drop, layer1: drop}\n"
    text += "add: {fc: {layer: linear, out: classes, inputs: input}}\noutputs: [fc]\n"
    model = compiled(text, base, classes=2)
    assert list(model.state_dict()) == ["fc.weight", "fc.bias"]
    assert model(torch.randn(3, 4)).shape == (3, 2)


def test_several_inputs_are_merged_without_a_word() -> None:
    text = "head: keep\nadd: {a: {layer: linear, out: 3, inputs: [layer0, act0]}}\n"
    message = str(refusal(text, chain(4, 5, 3)))
    assert "2 inputs" in message
    assert "concat" in message or "1 input" in message


class Typed(nn.Module):
    """Reads whole numbers and holds a buffer that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.bn = nn.BatchNorm1d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, input: Tensor) -> Tensor:
        return self.fc(self.bn(self.words(input)))


def test_dtype_is_lost() -> None:
    """A base in another dtype is refused by name, never converted; whole numbers stay such."""
    with pytest.raises(TLCompileError, match="float64"):
        compiled("head: keep\nfreeze: none\n", chain(4, 5, 3).double())
    text = "base: {model: own}\ninputs: {input: {shape: [], dtype: int64}}\nhead: keep\nfreeze: words\n"
    base = Typed()
    model = compile_recipe(recipe_of(text), base=base)
    assert model.state_dict()["bn.num_batches_tracked"].dtype == torch.int64
    x = torch.tensor([1, 8, 0])
    assert torch.equal(model.eval()(x), base.eval()(x))
    assert torch.equal(model.suffix(*model.prefix(x)), base(x))


def test_the_source_is_frozen_in_place() -> None:
    base = chain(4, 5, 3)
    before = copy.deepcopy(base)
    model = compiled("freeze: act0\n", base, classes=2)
    fit(model, labelled(6, 4, classes=2))
    assert not unequal(base, before)
    assert all(p.requires_grad for p in base.parameters())
    assert base.training


def test_settings_of_one_layer_cannot_be_changed() -> None:
    """#4095: another rate of one dropout, and everything else as it was."""
    base = nn.Sequential(OrderedDict(fc0=nn.Linear(4, 6), drop=nn.Dropout(), fc1=nn.Linear(6, 3)))
    text = (
        "head: keep\nfreeze: none\nremove: {drop: replace}\nadd: {drop: {layer: dropout, p: 0.1}}\n"
    )
    model = compiled(text, base)
    drop = model.get_submodule("drop")
    assert isinstance(drop, nn.Dropout)
    assert drop.p == 0.1
    assert not unequal(model, base)


def defaults(build: Callable[[], CompiledModel]) -> None:
    before = tensors(build())
    model = build()
    fit(model, labelled(6, 4, classes=2))
    assert moved(model, before)


def test_a_model_without_an_updater_does_not_train() -> None:
    """#5167: without a line about training there is an optimizer, and something trains."""
    text = "base: {model: own}\ninputs: {input: {shape: [4]}}\n"
    asked = recipe_of(text)
    model = compile_recipe(asked, base=chain(4, 5, 3), num_classes=2)
    refuse_untrainable(asked, model, 2)
    assert asked.fine_tune.optimizer.name == "adamw"
    defaults(lambda: compiled("", chain(4, 5, 3), classes=2))
