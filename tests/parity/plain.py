"""Plain torchvision models with weights that hide nothing, and what one pass or step of them gives."""

from __future__ import annotations

import copy
import dataclasses
import functools
import re
from typing import Any

import torch
from graph.tiny import recipe, shake
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchvision.models import get_model

from tlcompile.compiler import compile_opened
from tlcompile.model.compiled import CompiledModel
from tlcompile.zoo.base import BaseModel, base_from_module
from tlcompile.zoo.building import without_init
from tlcompile.zoo.torchvision import DETECTION, SEGMENTATION, VIDEO, model_names, open_torchvision

CLASSIFIERS = [n for n in model_names() if n not in (*SEGMENTATION, *VIDEO, *DETECTION)]
CLIPS = {"s3d": (16, 224, 224), "mvit_v1_b": (16, 224, 224), "mvit_v2_s": (16, 224, 224)}


def side_of(name: str) -> int:
    """Return a small image side that the model can take, pixels."""
    if match := re.match(r"vit_\w_(\d+)", name):
        return 4 * int(match[1])
    return {"inception_v3": 299, "maxvit_t": 224}.get(name, 64)


def plain_model(name: str) -> nn.Module:
    """Build a torchvision model with shaken weights; nothing is downloaded."""
    kwargs: dict[str, Any] = {"weights": None}
    if name.startswith("vit_"):
        kwargs["image_size"] = side_of(name)
    if name in ("googlenet", "inception_v3"):
        kwargs["init_weights"] = False
    if name in SEGMENTATION:
        kwargs["weights_backbone"] = None
    with without_init():
        return shake(get_model(name, **kwargs))


def shape_of(name: str) -> tuple[int, ...]:
    """Return a small image or clip that the model can take, without the batch."""
    if name in VIDEO:
        return (3, *CLIPS.get(name, (8, 32, 32)))
    return (3, side_of(name), side_of(name))


def images(name: str, count: int = 4) -> Tensor:
    count = min(count, 2) if name in VIDEO else count
    return torch.randn(count, *shape_of(name), generator=torch.Generator().manual_seed(1))


@functools.cache
def native_shape_of(name: str) -> tuple[int, ...] | None:
    """Return the size that stages belong to; a plain vision transformer is built for its own."""
    return open_torchvision(name, "default", None, load=False).native_shape


def compiled_at(
    name: str,
    model: nn.Module,
    point: str | dict[str, Any],
    *,
    head: str = "keep",
    classes: int = 7,
) -> CompiledModel:
    """Compile a copy of a plain model at its small size, frozen at one point."""
    opened: BaseModel = base_from_module(copy.deepcopy(model), side_of(name))
    native = None if name.startswith("vit_") else native_shape_of(name)
    opened = dataclasses.replace(opened, sample_shape=shape_of(name), native_shape=native)
    wanted = recipe(base={"model": name}, head=head, freeze={"upto": [point]})
    return compile_opened(wanted, opened, classes)


def leaves(output: Any) -> list[Tensor]:
    """Return the tensors of an output; a dict for an OrderedDict is the same output."""
    values = list(output.values()) if isinstance(output, dict) else output
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, Tensor)]


def evaluated(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.eval()
    with torch.no_grad():
        return leaves(model(x))


def stepped(model: nn.Module, x: Tensor, *, backward: bool = True) -> dict[str, Tensor]:
    """Run one training pass under one seed: outputs, random state, buffers and gradients by name."""
    model.train()
    model.zero_grad()
    torch.manual_seed(3)
    with torch.set_grad_enabled(backward):
        outputs = leaves(model(x))
    found = {f"output {i}": output.detach() for i, output in enumerate(outputs)}
    found["random state"] = torch.get_rng_state()
    if backward:
        sum((output * _weights(output)).sum() for output in outputs).backward()  # type: ignore[union-attr]
    found |= {f"buffer {name}": buffer.clone() for name, buffer in model.named_buffers()}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            found[f"gradient {name}"] = parameter.grad
    return found


def _weights(output: Tensor) -> Tensor:
    return torch.randn(output.shape, generator=torch.Generator().manual_seed(4))


def differences(left: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    """Name what is not equal to the bit, or there on one side only."""
    both = left.keys() & right.keys()
    unequal = [name for name in left if name in both and not torch.equal(left[name], right[name])]
    return [*unequal, *sorted(left.keys() ^ right.keys())]
