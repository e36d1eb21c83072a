"""Cases of models: which sets are wanted."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tiny import make_recipe
from torch import Tensor, nn
from torch.nn.utils import parametrize

from reliability.key_code import HITS as CODE_HITS
from reliability.key_code import MISSES as CODE_MISSES
from reliability.key_code import code_pair
from reliability.key_world import (
    FREEZE,
    HIT,
    MISS,
    OWN,
    PLAIN,
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
from tlcompile.compiler import compile_opened
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.schema import Recipe
from tlcompile.recipe.yaml_reader import read_recipe_text
from tlcompile.store import about
from tlcompile.zoo.bundled import WEIGHTS
from tlcompile.zoo.open import open_base


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


def _halved(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output / 2


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


class ConvOfOnes(nn.Module):
    """A convolution of ones, a factor that learns, so that rows are taken before it, a classifier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(width, 2)
        self.gain = nn.Parameter(torch.ones(1))
        nn.init.ones_(self.conv.weight)
        nn.init.ones_(self.conv.bias)


class Named(ConvOfOnes):
    """A network whose activation has a name of its own, under which it is called."""

    def __init__(self, name: str) -> None:
        super().__init__(4)
        self.name = name
        self.add_module(name, Relu())

    def forward(self, x: Tensor) -> Tensor:
        x = self.get_submodule(self.name)(self.conv(x))
        return self.fc((x * self.gain).mean((2, 3)))


class Codes(ConvOfOnes):
    """Features that are whole numbers: bytes in any precision."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        codes = self.conv(x).argmax(1, keepdim=True).to(torch.uint8)
        return self.fc((codes * self.gain).mean((2, 3)))


class TwoInputs(ConvOfOnes):
    """The second input crosses as it is."""

    def __init__(self) -> None:
        super().__init__(8)

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        return self.fc(torch.cat([self.conv(x).mean((2, 3)), meta * self.gain], 1))


@case(MISS, "the order of two hooks")
def _hooks(_ground: Ground) -> Pair:
    one, other = Net(), Net()
    for net, hooks in ((one, (_doubled, _halved)), (other, (_halved, _doubled))):
        for hook in hooks:
            net.act.register_forward_hook(hook)
    return wanted(one), wanted(other)


@case(MISS, "the vertex, where two compute the same")
def _vertex(_ground: Ground) -> Pair:
    """The store's blocks say whose rows they hold."""
    return wanted(Named("a"), freeze="a"), wanted(Named("b"), freeze="b")


@case(MISS, "the shape of a row, from the same modules")
def _shape_of_a_row(_ground: Ground) -> Pair:
    sizes = [{"model": "digits_net", "size": size} for size in (8, 9)]
    models = [compiled(Net(), base=size, freeze="bn1")[0] for size in sizes]
    one, other = (sets_of(model, PLAIN) for model in models)
    return one, other


@case(MISS, "bytes, of features computed in another precision")
def _codes(_ground: Ground) -> Pair:
    precisions = ("fp32-fused", "fast")
    one, other = (wanted(Codes(), freeze="to", features={"precision": word}) for word in precisions)
    return one, other


@case(MISS, "the type of a second input")
def _second_input(ground: Ground) -> Pair:
    ground.patch.setitem(about.DTYPES, "int64", torch.int64)  # type: ignore[index]
    inputs = [{"meta": {"shape": [4], "dtype": word}} for word in ("float32", "int64")]
    one, other = (wanted(TwoInputs(), freeze="conv", inputs=given) for given in inputs)
    return Wanted(one.abouts[:1]), Wanted(other.abouts[:1])


@case(MISS, "a resize in front, by a run before")
def _resized(_ground: Ground) -> Pair:
    step = make_recipe(base=OWN, freeze="none", resize={"conv1": {"out": 6, "overlap": True}})
    return wanted(), through(step)


@case(MISS, "a vertex added in front, by a run before")
def _added(_ground: Ground) -> Pair:
    more = {"layer": "prelu", "inputs": "bn1", "feeds": "act"}
    return wanted(), through(make_recipe(base=OWN, freeze="none", add={"more": more}))


@case(HIT, "an edit behind, by a run before")
def _replaced(_ground: Ground) -> Pair:
    step = make_recipe(base=OWN, freeze="none", remove={"head.0": "bypass"})
    return wanted(freeze="act"), through(step, freeze="act")


def through(step: Recipe, **sections: Any) -> Wanted:
    """Return the sets of a recipe whose base has been through another one."""
    recipe = make_recipe(**{"base": OWN, "freeze": FREEZE, **sections})
    opened = dataclasses.replace(open_base(recipe, Net()), steps=((step, 2),))
    return sets_of(compile_opened(recipe, opened, 2), opened.preprocessing)


# ---- What must not matter


BEHIND: dict[str, dict[str, Any]] = {
    "the rate": {"fine_tune": {"optimizer": {"name": "sgd", "lr": 0.3}}},
    "epochs": {"fine_tune": {"epochs": 99}},
    "the seed": {"fine_tune": {"seed": 99}},
    "the batch size of training": {"fine_tune": {"batch_size": 7}},
    "the schedule, the loss and the stop": {
        "fine_tune": {"schedule": "constant", "label_smoothing": 0.2, "early_stop": {"patience": 3}}
    },
    "phases": {
        "fine_tune": {"phases": [{"name": "one", "epochs": 1}, {"name": "two", "epochs": 2}]}
    },
    "the classifier that is there": {"head": "keep"},
    "another head": {
        "remove": {"fc": "replace"},
        "add": {
            "hidden": {"layer": "linear", "out": 5, "activation": "relu", "inputs": "head.1"},
            "fc": {"layer": "linear", "out": "classes", "inputs": "hidden"},
        },
    },
    "a layer behind": {
        "add": {"drop": {"layer": "dropout", "p": 0.5, "inputs": "head.1", "feeds": "fc"}}
    },
    "the task": {"task": "binary"},
    "the name": {"name": "another"},
    "the folder of runs": {"run": {"output_dir": "elsewhere"}},
    "the folder of the cache": {"run": {"cache": "elsewhere", "cache_budget": "1GB"}},
    "workers": {"run": {"workers": 7}},
    "augmentation of features": {"features": {"augment": {"noise": 0.1}}},
    "what else is frozen": {"freeze": ["conv1", "conv2"]},
}
for _name, _sections in BEHIND.items():
    HIT[_name] = lambda _ground, _sections=_sections: (wanted(), wanted(**_sections))

SAME: dict[str, Callable[[Net], object]] = {
    "nothing": lambda net: None,
    "a weight behind": lambda net: flip_bit(net.fc.weight),
    "the mode": lambda net: net.train(),
    "the mode of one module": lambda net: setattr(net.bn1, "training", False),
    "what learns": lambda net: net.requires_grad_(False),
    "a hook that is not in the way back": lambda net: net.register_state_dict_pre_hook(_nothing),
    "a forward run": lambda net: net.eval()(torch.ones(2, 3, 8, 8)),
    "tensors elsewhere in memory": lambda net: net.load_state_dict(
        {name: tensor.clone() for name, tensor in net.state_dict().items()}, assign=True
    ),
}
for _name, _edit in SAME.items():
    HIT[_name] = lambda _ground, _edit=_edit: edited(_edit)


def _nothing(*_args: Any) -> None:
    return None


AFTERWARDS: dict[str, Callable[[CompiledModel], CompiledModel]] = {
    "a copy": copy.deepcopy,
    "a pickled model": lambda model: pickle.loads(pickle.dumps(model)),
    "the mode of the model": lambda model: model.train().eval().train(),
    "the mode of a frozen module": lambda model: _with(model, model.conv2.train()),
    "gradients and backward hooks": lambda model: _with(
        model, model.conv2.register_full_backward_hook(_nothing), model.zero_grad()
    ),
    "a forward run of the model": lambda model: _with(model, model(torch.ones(2, 3, 8, 8))),
    "a trained classifier": lambda model: _with(model, flip_bit(model.fc.weight)),
}


def _with(model: CompiledModel, *_done: object) -> CompiledModel:
    return model


def _afterwards(change: Callable[[CompiledModel], CompiledModel]) -> Pair:
    model, preprocessing, _ = compiled(Net())
    return sets_of(model, preprocessing), sets_of(change(model), preprocessing)


for _name, _change in AFTERWARDS.items():
    HIT[_name] = lambda _ground, _change=_change: _afterwards(_change)

TEXT = "base: {model: digits_net}\nfreeze: block1\nfine_tune: {epochs: 3, seed: 1}\n"
OTHER_TEXT = """# A comment.
fine_tune:
  seed: 1   # another
  epochs: 3
freeze: {upto: block1}
base:
  model: digits_net
"""


@case(HIT, "comments, order of keys and spelling")
def _text(_ground: Ground) -> Pair:
    recipes = [
        recipe_from(spell_out(read_recipe_text(t, "r.yaml")), (), "r") for t in (TEXT, OTHER_TEXT)
    ]
    one, other = (digits(recipe) for recipe in recipes)
    return one, other


@case(HIT, "the weights in another file")
def _file(ground: Ground) -> Pair:
    copied = ground.folder / "copied.safetensors"
    shutil.copy(WEIGHTS["DIGITS_0_TO_4_V1"], copied)
    return digits(make_recipe(freeze="block1")), digits(_from_file(copied))


@case(MISS, "a bit in the file of weights")
def _other_file(ground: Ground) -> Pair:
    tensors = load_file(WEIGHTS["DIGITS_0_TO_4_V1"])
    flip_bit(tensors["stem.conv.weight"])
    save_file(tensors, ground.folder / "other.safetensors")
    other = _from_file(ground.folder / "other.safetensors")
    return digits(make_recipe(freeze="block1")), digits(other)


def _from_file(path: Path) -> Recipe:
    return make_recipe(base={"model": "digits_net", "weights": str(path)}, freeze="block1")


def digits(recipe: Recipe, num_classes: int = 5) -> Wanted:
    opened = open_base(recipe)
    return sets_of(compile_opened(recipe, opened, num_classes), opened.preprocessing)
