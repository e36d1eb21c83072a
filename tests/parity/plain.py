"""Plain torchvision models with weights that hide nothing, and what one pass or step of them gives."""

from __future__ import annotations

import re
from typing import Any

import torch
from graph.tiny import shake
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchvision.models import get_model, list_models, segmentation

from tlcompile.zoo.building import without_init

SEGMENTATION = list_models(segmentation)


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


def images(name: str, count: int = 4) -> Tensor:
    side = side_of(name)
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


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
