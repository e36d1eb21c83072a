"""Runs an edited description eagerly, vertex by vertex, with torch's own modules."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from property.drawn import NUM_OUT, Net, compute
from property.edited import Edited, Node, Refused


def build(edited: Edited, base: Net, state: dict[str, Tensor] | None) -> None:
    """Make every vertex' module: the base's own, or a new one with the weights of `state`.

    Raises:
        Refused: A vertex cannot take the shapes that reach it.
    """
    made: dict[str, nn.Module] = {}
    values: dict[str, Any] = {}
    for name in ordered(edited):
        node = edited.nodes[name]
        if node.vertex.kind == "input":
            values[name] = torch.zeros(2, *node.vertex.shape)
            continue
        read = [values[r] for r in node.reads]
        module = _module_of(node, read, base, state)
        if module is not None:
            edited.modules[name] = made.setdefault(node.vertex.module, module.eval())
        try:
            values[name] = step(edited, name, read)
        except (RuntimeError, ValueError, TypeError) as cause:
            raise Refused(str(cause)) from cause
    logits = values[edited.outputs[0]].shape[1:]
    if edited.num_logits and (logits[0] != edited.num_logits or len(logits) == 2):
        raise Refused("the new classifier does not give the logits")


def _module_of(
    node: Node, read: list[Tensor], base: Net, state: dict[str, Tensor] | None
) -> nn.Module | None:
    path = node.vertex.module
    if not node.added:
        return copy.deepcopy(base.get_submodule(path.removesuffix(".gain"))) if path else None
    module = added_module(node, read)
    if module is not None and state is not None:
        own = {name: state[f"{path}.{name}"] for name in module.state_dict()}
        module.load_state_dict(own)
    return module


def ordered(edited: Edited) -> list[str]:
    """Return the names, each behind what it reads."""
    waiting, done = list(edited.nodes), []
    while waiting:
        name = next((n for n in waiting if set(edited.nodes[n].reads) <= set(done)), None)
        if name is None:
            raise Refused("a circle")
        done.append(name)
        waiting.remove(name)
    return done


def run(edited: Edited, order: list[str], inputs: dict[str, Tensor]) -> Any:
    """Run the vertices in the given order; return what the model returns."""
    values: dict[str, Any] = dict(inputs)
    for name in order:
        if name not in inputs:
            values[name] = step(edited, name, [values[r] for r in edited.nodes[name].reads])
    if len(edited.outputs) == 1:
        return values[edited.outputs[0]]
    found = {name: values[name] for name in edited.outputs}
    return found if edited.named else tuple(values[name] for name in edited.outputs)


def step(edited: Edited, name: str, values: list[Any]) -> Any:
    node = edited.nodes[name]
    module = edited.modules.get(name)
    if node.added and module is None:
        return FUNCTIONS_ADDED[node.vertex.kind](node.added, values)
    if node.added or node.vertex.kind != "param":
        out_of_place = replace(node.vertex, in_place=False)
        if isinstance(module, nn.ReLU):
            module.inplace = False
        return compute(out_of_place, module, values)
    return compute(node.vertex, module, values)


def _average(layer: dict[str, Any], values: list[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total / len(values) if layer["layer"] == "average" else total


def _same(values: list[Tensor]) -> None:
    if len({value.shape for value in values}) > 1:
        raise Refused("other shapes")


def _combine(layer: dict[str, Any], values: list[Tensor]) -> Tensor:
    _same(values)
    if layer["layer"] in ("add", "average"):
        return _average(layer, values)
    out = values[0]
    for value in values[1:]:
        out = torch.maximum(out, value) if layer["layer"] == "maximum" else out * value
    return out


FUNCTIONS_ADDED: dict[str, Any] = {
    **dict.fromkeys(("add", "average", "maximum", "multiply"), _combine),
    "concat": lambda layer, values: torch.cat(values, 1),
    "scale": lambda layer, values: values[0] * layer["by"],
    "shift": lambda layer, values: values[0] + layer["by"],
    "l2_normalise": lambda layer, values: F.normalize(values[0], dim=1),
    "subset": lambda layer, values: values[0][:, layer["first"] : layer["last"] + 1],
}
_ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU}
_POOLS = {"max_pool": lambda: nn.MaxPool2d(2), "avg_pool": lambda: nn.AvgPool2d(2),
          "global_pool": lambda: nn.AdaptiveAvgPool2d(1)}  # fmt: skip


def added_module(node: Node, values: list[Tensor]) -> nn.Module | None:
    """Return torch's own module for an entry of `add`, as wide as what reaches it."""
    layer, shape = node.added or {}, tuple(values[0].shape[1:])
    kind = layer["layer"]
    if kind == "concat" and len({tuple(value.shape[2:]) for value in values}) > 1:
        raise Refused("sizes")
    if kind == "subset" and layer["last"] >= shape[0]:
        raise Refused("channels that do not exist")
    return MAKERS[kind](layer, shape) if kind in MAKERS else None


def _head(layer: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    if layer["kind"] == "linear":
        return nn.Linear(shape[-1], layer["out"], *layer["rest"])
    kernel, stride, _, bias = layer["rest"]
    return nn.Conv2d(shape[0], layer["out"], kernel, stride, bias=bias)


def _linear(layer: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    if len(shape) == 3:
        raise Refused("a map into a linear layer")
    return nn.Linear(shape[0], _width(layer), bias=layer.get("bias", True))


def _conv(layer: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    if len(shape) != 3:
        raise Refused("a vector into a convolution")
    kernel, padding = layer.get("kernel", 3), layer.get("padding", 0)
    bias = layer.get("bias", True)
    return nn.Conv2d(shape[0], _width(layer), kernel, padding=padding, bias=bias)


def _batch_norm(layer: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    del layer
    return (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[0])


def _pool(layer: dict[str, Any], shape: tuple[int, ...]) -> nn.Module:
    if len(shape) != 3:
        raise Refused("a vector into a pooling")
    return _POOLS[layer["layer"]]()


MAKERS: dict[str, Callable[[dict[str, Any], tuple[int, ...]], nn.Module]] = {
    "head": _head,
    "linear": _linear,
    "conv2d": _conv,
    "batch_norm": _batch_norm,
    "norm": _batch_norm,
    "activation": lambda layer, shape: _ACTIVATIONS[layer.get("what") or layer["name"]](),
    "dropout": lambda layer, shape: nn.Dropout(layer.get("what") or layer["p"]),
    "flatten": lambda layer, shape: nn.Flatten(),
    **dict.fromkeys(_POOLS, _pool),
}


def _width(layer: dict[str, Any]) -> int:
    return int(NUM_OUT + 1 if layer["out"] == "classes" else layer["out"])
