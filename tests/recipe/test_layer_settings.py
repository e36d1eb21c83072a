"""Settings of layers that no row of test_layers.py has: each gives what torch's own layer gives."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from recipe.layer_rows import M, Row, T, V
from recipe.many_shapes import INPUTS, compiled
from recipe.setting_rows import SETTINGS
from torch import Tensor, nn

from tlcompile.model.compiled import CompiledModel

PART = re.compile(r"^new\.(cells\.|heads\.)?")


def state_of(model: CompiledModel) -> dict[str, Tensor]:
    """Return the new layer's own tensors."""
    found = {n: t.clone() for n, t in model.state_dict().items() if n.startswith("new.")}
    return {PART.sub("", name): t for name, t in found.items()}


def outputs(row: Row, seed: int = 7) -> tuple[Tensor, Tensor]:
    """Compute a row in train mode by the compiled model, and by plain torch with its weights."""
    model = compiled(row.layer, row.inputs).train()
    x = torch.randn(3, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    values = [INPUTS[name](model, x) for name in row.inputs]
    module = row.module() if row.module else None
    if module is not None:
        module.load_state_dict(state_of(model))
        module.train()
    torch.manual_seed(seed)
    wanted = row.call(module, *values)
    torch.manual_seed(seed)
    return model(x), wanted


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: "-".join(map(str, row.layer)))
def test_a_setting_is_torchs_own(row: Row) -> None:
    ours, wanted = outputs(row)
    assert torch.equal(ours, wanted)


@pytest.mark.parametrize(
    "layer",
    [
        {"layer": "depthwise_conv2d", "kernel": 5},
        {"layer": "depthwise_conv2d", "stride": 2},
        {"layer": "depthwise_conv2d", "dilation": 2},
        {"layer": "depthwise_conv2d", "padding": 1},
        {"layer": "depthwise_conv2d", "padding": 1, "padding_mode": "reflect"},
        {"layer": "separable_conv2d", "out": 4, "kernel": 5},
        {"layer": "separable_conv2d", "out": 4, "stride": 2},
        {"layer": "separable_conv2d", "out": 4, "dilation": 2},
        {"layer": "separable_conv2d", "out": 4, "padding": 1, "padding_mode": "reflect"},
    ],
    ids=lambda layer: f"{layer['layer']}-{list(layer)[-1]}",
)
def test_a_setting_reaches_the_window(layer: dict[str, Any]) -> None:
    """Of a separable convolution: the window of its first half; the second has none."""
    key = list(layer)[-1]
    model = compiled(layer, [M])
    window = next(one for one in model.get_submodule("new").modules() if isinstance(one, nn.Conv2d))
    found = getattr(window, {"kernel": "kernel_size"}.get(key, key))
    assert found in (layer[key], (layer[key],) * 2)


@pytest.mark.parametrize("kind", ["bilinear", "conv1d", "conv_transpose1d", "rnn", "gru",
                                  "multi_head_attention", "separable_conv1d", "linear"])  # fmt: skip
def test_a_layer_without_a_bias_has_none(kind: str) -> None:
    width = {"rnn": {"hidden_size": 5}, "gru": {"hidden_size": 5},
             "multi_head_attention": {"num_heads": 4}}.get(kind, {"out": 4})  # fmt: skip
    reads = [V, V] if kind == "bilinear" else [T]
    model = compiled({"layer": kind, **width, "bias": False}, reads)
    assert not [name for name in state_of(model) if "bias" in name]
