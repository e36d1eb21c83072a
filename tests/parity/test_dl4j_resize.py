"""DL4J's tests of nOutReplace and nInReplace, by its test names (A: chain builder, B: graph builder)."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from parity.dl4j import chain, compiled, fit, labelled, sgd, unequal
from tlcompile.errors.base import TLCompileError
from tlcompile.model.compiled import CompiledModel

KEEP = "freeze: none\nhead: keep\n"


def synced(model: CompiledModel, reference: nn.Module) -> None:
    """Copy every parameter into the reference; raises where a name or a shape differs."""
    reference.load_state_dict(model.state_dict())


def inits(model: CompiledModel) -> dict[str, str]:
    return {row.name: row.init for row in model.tensors() if row.name.endswith("weight")}


NORMAL = "{name: normal, mean: 1, std: 0.1}"


def test_a2_b2_two_widths_with_an_initialiser_for_the_layer_and_one_for_its_readers() -> None:
    base = chain(4, 5, 2, 3, 3)
    first = f"layer0: {{out: 3, init: xavier_normal, fan_out_init: {NORMAL}}}"
    text = f"resize: {{layer3: {{out: 2, init: xavier_normal}}, {first}}}"
    model = compiled(KEEP + text, base)
    assert inits(model) == {
        "layer0.weight": "xavier_normal",
        "layer1.weight": "normal(mean=1.0, std=0.1)",
        "layer2.weight": "",
        "layer3.weight": "xavier_normal",
    }
    assert (model.get_parameter("layer1.weight") - 1).abs().max() < 0.6
    reference = chain(4, 3, 2, 3, 2)
    synced(model, reference)
    batches = labelled(10, 4, classes=2, steps=3)
    assert fit(model, batches) == fit(reference, batches)
    assert not unequal(model, reference)


def test_a2_b2_a_base_whose_widths_do_not_fit_is_refused() -> None:
    """DL4J's own base for this test never worked: 4-5 before 3-2; its resize was to mend it."""
    base = nn.Sequential(OrderedDict(layer0=nn.Linear(4, 5), layer1=nn.Linear(3, 2)))
    with pytest.raises(TLCompileError) as caught:
        compiled(f"{KEEP}resize: {{layer0: {{out: 3}}}}", base)
    assert "'layer1' (Linear)" in str(caught.value)


def test_a3_b3_two_widths_and_a_replaced_output_that_trains_at_its_own_rate() -> None:
    text = "freeze: none\nresize: {layer0: {out: 7}, layer2: {out: 5}}\nremove: {layer3: replace}\n"
    model = compiled(text + "add: {layer3: {layer: linear, out: 3}}", chain(4, 5, 2, 3, 3))
    reference = chain(4, 7, 2, 5, 3)
    synced(model, reference)
    batches = labelled(10, 4, steps=3)

    def rates(net: nn.Module) -> torch.optim.Optimizer:
        optimizer = sgd(net)
        optimizer.param_groups.clear()
        for name, layer in net.named_children():
            if any(True for _ in layer.parameters()):
                lr = 0.5 if name == "layer3" else 0.1
                optimizer.add_param_group({"params": list(layer.parameters()), "lr": lr})
        return optimizer

    assert fit(model, batches, optimizer=rates(model)) == fit(
        reference, batches, optimizer=rates(reference)
    )
    assert not unequal(model, reference)


class Convolutions(nn.Module):
    """A9: 3x3 to 10 channels, 1x1 to 3, an output, on images of 6 x 6 x 6."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0 = nn.Conv2d(6, 10, 3)
        self.layer1 = nn.Conv2d(10, 3, 1)
        self.out = nn.Linear(48, 2)

    def forward(self, input: Tensor) -> Tensor:
        return self.out(self.layer1(self.layer0(input)).flatten(1))  # type: ignore[no-any-return]


CONSTANTS = "{name: constant, val: 333}", "{name: constant, val: 111}"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a9_b7_lines_of_consecutive_layers_compose(order: tuple[int, int]) -> None:
    """DL4J #6343: the second line gave the second layer its old input width back."""
    lines = [
        f"layer0: {{out: 7, init: {CONSTANTS[0]}}}",
        f"layer1: {{out: 4, init: {CONSTANTS[1]}}}",
    ]
    text = f"freeze: none\nresize: {{{', '.join(lines[i] for i in order)}}}\nremove: {{out: replace}}\n"
    model = compiled(text + "add: {out: {layer: linear, out: 2}}", Convolutions(), shape=(6, 6, 6))
    assert model.get_parameter("layer1.weight").shape == (4, 7, 1, 1)
    assert model.get_parameter("layer0.weight").unique().tolist() == [333]
    assert model.get_parameter("layer1.weight").unique().tolist() == [111]
    assert model.get_parameter("out.weight").shape == (2, 4 * 4 * 4)
    assert model(torch.zeros(6, 6, 6, 6)).shape == (6, 2)


class Pooled(nn.Module):
    """A10: 1x1 to 10 channels, a pooling, 1x1 to 7, an output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0 = nn.Conv2d(6, 10, 1)
        self.layer2 = nn.Conv2d(10, 7, 1)
        self.out = nn.Linear(7 * 9, 2)

    def forward(self, input: Tensor) -> Tensor:
        x = self.layer2(nn.functional.max_pool2d(self.layer0(input), 2))
        return self.out(x.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("line", ["", ", layer2: {in: 5, init: xavier_normal}"])
def test_a10_b8_a_width_passes_a_pooling_with_and_without_its_line(line: str) -> None:
    """DL4J stopped at the pooling: nInReplace had to name the next layer, which may be done here."""
    model = compiled(f"{KEEP}resize: {{layer0: {{out: 5}}{line}}}", Pooled(), shape=(6, 6, 6))
    assert model.get_parameter("layer0.weight").shape == (5, 6, 1, 1)
    assert model.get_parameter("layer2.weight").shape == (7, 5, 1, 1)
    assert inits(model)["layer2.weight"] == ("xavier_normal" if line else "default")
    assert model(torch.zeros(2, 6, 6, 6)).shape == (2, 2)


def test_a10_b8_the_line_of_the_reader_alone_says_what_reaches_it() -> None:
    with pytest.raises(TLCompileError, match=r"'layer2' is to read 5 channels and gets 10"):
        compiled(f"{KEEP}resize: {{layer2: {{in: 5}}}}", Pooled(), shape=(6, 6, 6))


class Images(nn.Module):
    """A5: two convolutions with poolings, and three dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0, self.layer2 = nn.Conv2d(3, 4, 5), nn.Conv2d(4, 5, 5)
        self.layer4, self.layer5 = nn.Linear(80, 10), nn.Linear(10, 9)
        self.layer6 = nn.Linear(9, 8)

    def forward(self, input: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.layer0(input), 2)
        x = nn.functional.max_pool2d(self.layer2(x), 2).flatten(1)
        return self.layer6(self.layer5(self.layer4(x)))  # type: ignore[no-any-return]


def test_a5_b4_a_width_behind_the_frozen_part_with_new_layers_behind_it() -> None:
    text = """
freeze: max_pool2d
resize: {layer4: {out: 12}}
remove: {layer5: drop, layer6: drop}
add:
  fc5: {layer: linear, out: 8, activation: tanh, inputs: layer4}
  fc6: {layer: linear, out: classes, inputs: fc5}
outputs: [fc6]
"""
    base = Images()
    model = compiled(text, base, shape=(3, 28, 28), classes=6)
    frozen = [row.name for row in model.tensors() if row.state == "frozen"]
    assert frozen == ["layer0.weight", "layer0.bias"]
    assert {r.name: r.origin for r in model.tensors()}["layer2.weight"] == "loaded"
    assert model.get_parameter("layer4.weight").shape == (12, 80)

    def tail(x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(parts["layer2"](x), 2).flatten(1)
        return parts["fc6"](torch.tanh(parts["fc5"](parts["layer4"](x))))

    parts = nn.ModuleDict(
        {
            "layer2": nn.Conv2d(4, 5, 5),
            "layer4": nn.Linear(80, 12),
            "fc5": nn.Linear(12, 8),
            "fc6": nn.Linear(8, 6),
        }
    )
    parts.load_state_dict({n: t for n, t in model.state_dict().items() if "layer0" not in n})
    batches = labelled(10, 3, 28, 28, classes=6, steps=3)
    with torch.no_grad():
        features = [((nn.functional.max_pool2d(base.layer0(x), 2),), y) for (x,), y in batches]
    assert fit(model, batches) == fit(parts, features, forward=tail)
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in parts.state_dict().items())
