"""What DL4J's tests need: its small networks as plain modules, and training that both sides share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from graph.tiny import recipe_of
from torch import Tensor, nn

from parity.plain import differences, leaves
from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel

Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # inputs, targets: one for each output


def compiled(
    text: str, base: nn.Module, *, shape: Sequence[int] = (4,), classes: int | None = None
) -> CompiledModel:
    """Compile a recipe over a module with one input, called `input` as nn.Sequential does.

    Args:
        text: Without base and inputs.
        base: The user's own module.
        shape: Of one sample.
        classes: For `out: classes` and `head: auto`.
    """
    top = f"base: {{model: own}}\ninputs: {{input: {{shape: {list(shape)}}}}}\n"
    return compile_recipe(recipe_of(top + text), base=base, num_classes=classes)


def chain(*widths: int, between: type[nn.Module] = nn.Sigmoid) -> nn.Sequential:
    """Build DL4J's dense chain: layer0, act0, layer1, ... without an activation on the output."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (wide, out) in enumerate(pairwise(widths)):
        parts[f"layer{index}"] = nn.Linear(wide, out)
        parts[f"act{index}"] = between()
    parts.popitem()
    return nn.Sequential(parts)


def labelled(count: int, *shape: int, classes: int = 3, steps: int = 1) -> list[Batch]:
    """Draw batches of `count` samples with labels."""
    return [
        ((torch.randn(count, *shape),), (torch.randint(classes, (count,)),)) for _ in range(steps)
    ]


def scored(output: Any, targets: tuple[Tensor, ...]) -> Tensor:
    """Sum a loss over the outputs: cross-entropy for labels, mean square for numbers."""
    outputs = leaves(output)
    assert len(outputs) == len(targets) > 0
    losses = [
        nn.functional.mse_loss(o, t)
        if t.is_floating_point()
        else nn.functional.cross_entropy(o.flatten(0, -2), t.flatten())
        for o, t in zip(outputs, targets, strict=True)
    ]
    return torch.stack(losses).sum()


def sgd(model: nn.Module, lr: float = 0.1, **options: Any) -> torch.optim.Optimizer:
    """Give the optimizer every parameter, also frozen ones: nothing may leak into them."""
    return torch.optim.SGD(model.parameters(), lr=lr, **options)


def fit(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    forward: Callable[..., Any] | None = None,
) -> list[Tensor]:
    """Train one step a batch under one seed; return the score of each step.

    Args:
        model: Put in train mode.
        batches: One step each.
        optimizer: None: SGD over all of the model's parameters.
        forward: What computes the outputs; None: the model.
    """
    optimizer = optimizer or sgd(model)
    model.train()
    torch.manual_seed(7)
    scores = []
    for inputs, targets in batches:
        optimizer.zero_grad()
        score = scored((forward or model)(*inputs), targets)
        score.backward()
        optimizer.step()
        scores.append(score.detach())
    return scores


def tensors(model: nn.Module, *names: str) -> dict[str, Tensor]:
    """Copy the tensors of a model; with names those of these children alone."""
    return {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if not names or name.split(".")[0] in names
    }


def unequal(one: nn.Module, other: nn.Module) -> list[str]:
    """Name the tensors that two models do not share to the bit."""
    return differences(tensors(one), tensors(other))


def moved(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """Return the children that hold a tensor which is not what it was."""
    after = model.state_dict()
    return {name.split(".")[0] for name in before if not torch.equal(after[name], before[name])}
