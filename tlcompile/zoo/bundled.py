"""The small offline base: a convolutional network for 8x8 digits, with its weights in the package.

Pretrained on the digits 0-4 by recipes/digits_base.yaml; see digits_net.md for data and licence.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from tlcompile.errors.weights import UnknownWeightsError
from tlcompile.zoo.base import BaseModel
from tlcompile.zoo.building import load_exactly
from tlcompile.zoo.files import is_file, read_tensors
from tlcompile.zoo.preprocessing import Preprocessing

NAME = "digits_net"
WEIGHTS = {"DIGITS_0_TO_4_V1": Path(__file__).with_name("digits_net.safetensors")}
LICENCE = "data: UCI optical digits, CC BY 4.0; weights: Apache-2.0"
CATEGORIES = ("0", "1", "2", "3", "4")

# One grey channel of 8x8 pixels; mean and deviation of the digits 0-4 in [0, 1].
SHAPE = (1, 8, 8)
PREPROCESSING = Preprocessing((8, 8), None, (0.305,), (0.378,), "bilinear", 1)


def digits_net(num_classes: int = 5) -> nn.Module:
    """Build the network: a stem at 8x8, then blocks that end at strides 2, 4 and 8.

    Shape:
        in: (N, 1, 8, 8)   out: (N, num_classes)
    """
    return nn.Sequential(
        OrderedDict(
            stem=_block(1, 32, pool=False),
            block1=_block(32, 32),
            block2=_block(32, 64),
            block3=_block(64, 128),
            flatten=nn.Flatten(),
            fc=nn.Linear(128, num_classes),
        )
    )


def _block(width_in: int, width_out: int, pool: bool = True) -> nn.Sequential:
    # No BatchNorm: with it, 50 images from scratch do as well, and there is no transfer to see.
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(width_in, width_out, 3, padding=1),
        relu=nn.ReLU(),
    )
    if pool:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


def open_bundled(weights: str, seed: int, *, load: bool = True) -> BaseModel:
    """Build digits_net, and load its weights unless they are `none`.

    Args:
        weights: `default`, a name, a path, or `none`.
        seed: Of the initial weights, where there are no others.
        load: Whether real weights are wanted; without, no file is read.

    Raises:
        UnknownWeightsError: There are no such weights.
        WeightsFileError: The file cannot be read.
        WeightsMismatchError: The file's tensors are another model's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        module = digits_net()
    name = "DIGITS_0_TO_4_V1" if weights == "default" else weights
    if name != "none":
        if name not in WEIGHTS and not is_file(name):
            raise UnknownWeightsError(model=NAME, name=name, weights=tuple(WEIGHTS))
        if load:
            path = str(WEIGHTS.get(name, name))
            load_exactly(module, read_tensors(path), source=path, model=NAME)
    return BaseModel(
        name=NAME,
        module=module,
        sample_shape=SHAPE,
        preprocessing=PREPROCESSING,
        weights=name,
        loaded=load and name != "none",
        licence=LICENCE,
        categories=CATEGORIES if name in WEIGHTS else (),
    )
