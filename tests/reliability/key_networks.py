"""Cases of models: which sets are wanted."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from reliability.key_code import HITS as CODE_HITS
from reliability.key_code import MISSES as CODE_MISSES
from reliability.key_code import code_pair
from reliability.key_world import (
    HIT,
    MISS,
    Ground,
    Net,
    Pair,
    Wanted,
    case,
    compiled,
    edited,
    flip_bit,
    sets_of,
    wanted,
)


def _statistics(net: Net) -> None:
    net.bn1.running_var *= 2


def _dtype(net: Net) -> None:
    net.kept = net.kept.view(torch.int32)


def _shape(net: Net) -> None:
    net.kept = net.kept.view(1, 4, 1, 1)


def _own_forward(net: Net) -> None:
    net.act.forward = torch.tanh  # type: ignore[method-assign]


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


NET_EDITS: dict[str, Callable[[Net], object]] = {
    "one bit of one weight": lambda net: flip_bit(net.conv2.weight),
    "one bit of a bias": lambda net: flip_bit(net.conv1.bias),
    "one bit of a buffer": lambda net: flip_bit(net.kept),
    "one bit of a buffer that is not saved": lambda net: flip_bit(net.passing),
    "one bit of a plain tensor": lambda net: flip_bit(net.plain),
    "statistics of BatchNorm": _statistics,
    "eps of BatchNorm": lambda net: setattr(net.bn1, "eps", 1e-3),
    "the dtype of a tensor of the same bytes": _dtype,
    "the shape of a tensor of the same bytes": _shape,
    "the order of a weight in memory": lambda net: net.conv2.to(memory_format=torch.channels_last),
    "padding": lambda net: setattr(net.conv2, "padding_mode", "reflect"),
    "dilation": lambda net: setattr(net.conv2, "dilation", (2, 2)),
    "a number in the forward": lambda net: setattr(net, "by", 3.0),
    "a hook that may change the output": lambda net: net.act.register_forward_hook(_doubled),
    "a hook that may change the input": lambda net: net.act.register_forward_pre_hook(_ignored),
    "a parametrization": lambda net: parametrize.register_parametrization(
        net.conv2, "weight", Halved()
    ),
}


def _doubled(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output * 2


def _ignored(_module: nn.Module, _inputs: Any) -> None:
    return None


for _name, _edit in NET_EDITS.items():
    MISS[_name] = lambda _ground, _edit=_edit: edited(_edit)


ACTIVATIONS: dict[str, tuple[nn.Module, nn.Module]] = {
    "another activation without settings": (nn.Tanh(), nn.Sigmoid()),
    "another activation": (nn.ReLU(), nn.ReLU6()),
    "a setting of an activation": (nn.GELU(), nn.GELU(approximate="tanh")),
    "the slope of an activation": (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
}
for _name, _two in ACTIVATIONS.items():
    MISS[_name] = lambda _ground, _two=_two: (wanted(Net(_two[0])), wanted(Net(_two[1])))

RECIPES: dict[str, dict[str, Any]] = {
    "the freeze point": {"freeze": "bn1"},
    "the chunk size": {"features": {"batch_size": 16}},
    "precision fp32-fused": {"features": {"precision": "fp32-fused"}},
    "precision fast": {"features": {"precision": "fast"}},
    "the size of the images": {"base": {"model": "digits_net", "size": 9}},
    "a vertex bypassed in front": {"remove": {"act": "bypass"}},
    "a vertex added in front": {"add": {"more": {"layer": "relu", "inputs": "bn1", "feeds": "act"}}},
}
for _name, _sections in RECIPES.items():
    MISS[_name] = lambda _ground, _sections=_sections: (wanted(), wanted(**_sections))
MISS["stride"] = lambda _ground: (wanted(), wanted(Net(stride=2)))
for _name in CODE_MISSES:
    MISS[f"code: {_name}"] = lambda _ground, _name=_name: code_pair(_name)
for _name in CODE_HITS:
    HIT[f"code: {_name}"] = lambda _ground, _name=_name: code_pair(_name)




class Relu(nn.Module):
    """Traced through: its name is in the name of its vertex, and in nothing that is computed."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)


class Named(nn.Module):
    """A network whose activation has a name of its own, under which it is called."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, Relu())
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 2)
        self.gain = nn.Parameter(torch.ones(1))  # learns, so the rows are taken before it
        nn.init.ones_(self.conv.weight)
        nn.init.ones_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.get_submodule(self.name)(self.conv(x))
        return self.fc((x * self.gain).mean((2, 3)))


class Codes(nn.Module):
    """Features that are whole numbers: bytes in any precision."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(1, 2)
        self.gain = nn.Parameter(torch.ones(1))  # learns, so the rows are taken before it
        nn.init.ones_(self.conv.weight)
        nn.init.ones_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        codes = self.conv(x).argmax(1, keepdim=True).to(torch.uint8)
        return self.fc((codes * self.gain).mean((2, 3)))


class TwoInputs(nn.Module):
    """The second input crosses as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(8, 2)
        self.gain = nn.Parameter(torch.ones(1))  # learns, so the rows are taken before it
        nn.init.ones_(self.conv.weight)
        nn.init.ones_(self.conv.bias)

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        return self.fc(torch.cat([self.conv(x).mean((2, 3)), meta * self.gain], 1))
