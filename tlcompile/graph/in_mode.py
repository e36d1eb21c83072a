"""Functions that are told `self.training` by the root's own forward, as modules that know their mode.

Below the root, the module that asks becomes a leaf; the root cannot.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import fx, nn


class FunctionInMode(nn.Module):
    """Call a function out of place with `training` as it is now, so that freezing can stop it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, **arguments: Any) -> Any:
        """Return what the function returns in the module's mode."""
        return self.function(**arguments, training=self.training)

    def extra_repr(self) -> str:
        """Name the function."""
        return self.function.__name__


def follow_mode(root: nn.Module, trained: fx.Node, evaluated: fx.Node) -> bool:
    """Turn two calls that differ in `training` alone into one module of the root's.

    Args:
        root: It gains the module, which holds no tensor.
        trained: A call in the train graph.
        evaluated: The same call in the eval graph.

    Returns:
        Whether they were such calls.
    """
    one, other = _arguments(trained), _arguments(evaluated)
    if one is None or other is None or trained.target is not evaluated.target:
        return False
    if (one.pop("training", None), other.pop("training", None)) != (True, False):
        return False
    if str(one) != str(other):
        return False
    function: Any = trained.target
    name = _free_name(root, function.__name__)
    root.add_module(name, FunctionInMode(function))
    for node, arguments in ((trained, one), (evaluated, other)):
        arguments.pop("inplace", None)
        node.op, node.target, node.args, node.kwargs = "call_module", name, (), arguments
    return True


def _arguments(node: fx.Node) -> dict[str, Any] | None:
    """Return the arguments of a call by name; None: it is no function that takes `training`."""
    target: Any = node.target
    if node.op != "call_function" or not inspect.isfunction(inspect.unwrap(target)):
        return None
    signature = inspect.signature(target)
    if "training" not in signature.parameters:
        return None
    bound = signature.bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _free_name(root: nn.Module, name: str) -> str:
    """Return a name that the root has not given to something else."""
    free, number = name, 0
    while hasattr(root, free):
        number += 1
        free = f"{name}_{number}"
    return free
