"""What the zoo gives: a module with what one must know to use it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils import _pytree as pytree

from tlcompile.errors.graph import NotTraceableError
from tlcompile.errors.weights import WrongDtypeError
from tlcompile.recipe.finished import FinishedRun
from tlcompile.recipe.schema import Input, Recipe
from tlcompile.zoo.preprocessing import Preprocessing

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]; torchvision's references
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BaseModel:
    """A base model, ready to be compiled.

    Attributes:
        name: In the zoo, or the class of a user's own module.
        module: With real tensors; they are garbage where `loaded` is false.
        sample_shape: Of one image, (channels, height, width); of a clip, (channels, frames, height,
            width).
        preprocessing: From an image to that shape.
        weights: What was loaded: a name, a path, or "none".
        loaded: Whether the tensors are the weights' own.
        licence: One line, where the source states one.
        categories: Names of its own classes, where they are known.
        inputs: Inputs of a user's module beside the image, by name.
        native_shape: The sample shape that the weights were made for; None: `sample_shape`.
        steps: Recipes of the runs that it has been through since, oldest first, each with its number
            of classes.
        run: The run whose weights it has; None: it has its own.
    """

    name: str
    module: nn.Module
    sample_shape: tuple[int, ...]
    preprocessing: Preprocessing
    weights: str
    loaded: bool
    licence: str
    categories: tuple[str, ...] = ()
    native_shape: tuple[int, ...] | None = None
    inputs: dict[str, Input] = field(default_factory=dict)
    steps: tuple[tuple[Recipe, int], ...] = ()
    run: FinishedRun | None = None


def copied(module: nn.Module) -> nn.Module:
    """Copy a user's module; what it has computed and kept is copied without its history.

    torch copies no tensor that has one: an attention map kept for later, the weight of an old
    weight_norm.

    Raises:
        NotTraceableError: It has layers that do not know their sizes yet.
    """
    if any(map(nn.parameter.is_lazy, (*module.parameters(), *module.buffers()))):
        raise NotTraceableError(
            model=type(module).__name__,
            reason="it has lazy layers, which do not know their sizes yet",
            wanted="a module whose parameters have sizes",
            advice="call it once with a sample, then pass it",
        )
    kept = [v for one in module.modules() for v in pytree.tree_leaves(list(vars(one).values()))]
    computed = [v for v in kept if isinstance(v, torch.Tensor) and not v.is_leaf]
    return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in computed})


def base_from_module(
    module: nn.Module, size: int | None, inputs: dict[str, Input] | None = None
) -> BaseModel:
    """Wrap a user's own module; images are square, ImageNet's statistics normalise them.

    Args:
        module: It gives its tensors away.
        size: Image side, pixels; None: 224.
        inputs: The shapes of its inputs by name; the one that is missing is a colour image.
    """
    odd = {p.dtype for p in module.parameters() if p.is_floating_point()} - {torch.float32}
    if odd:
        raise WrongDtypeError(model=type(module).__name__, found=", ".join(sorted(map(str, odd))))
    side = size or 224
    preprocessing = Preprocessing(side, side, IMAGENET_MEAN, IMAGENET_STD, "bilinear", 3)
    name, shape = type(module).__name__, (3, side, side)
    further = inputs or {}
    return BaseModel(name, module, shape, preprocessing, "given", True, "yours", inputs=further)
