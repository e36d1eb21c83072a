"""What a forward does while it is traced that a graph does not hold: noticed, never lost in silence."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn


class Lost(Exception):  # noqa: N818, it is an answer, not an error
    """A forward does something that its graph would not do.

    Attributes:
        reason: What.
        wanted: What a forward does instead.
        advice: What to write.
    """

    def __init__(self, reason: str, wanted: str, advice: str) -> None:
        super().__init__(reason)
        self.reason, self.wanted, self.advice = reason, wanted, advice


def contexts() -> tuple[bool, ...]:
    """Return the contexts in which operations compute something else, or learn nothing."""
    autocast = (torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))
    return torch.is_grad_enabled(), *autocast


def refuse_context(outside: tuple[bool, ...]) -> None:
    """Refuse a block of no_grad or autocast: a graph has calls, and no blocks.

    Raises:
        Lost: The contexts are others than around the whole.
    """
    if contexts() != outside:
        raise Lost(
            "its own forward has a block of torch.no_grad() or torch.autocast()",
            "a forward that computes everything in one way",
            "leave no_grad out and write freeze, or put the block into a module of its own",
        )


@contextlib.contextmanager
def watching(module: nn.Module) -> Iterator[None]:
    """Watch a forward; random numbers and tensors of the module are as before, whatever happens.

    Raises:
        Lost: It drew numbers that the graph would hold for ever, or exchanged a tensor.
    """
    drawn, buffers, parameters = _random_state(), dict(module._buffers), dict(module._parameters)
    try:
        yield
        if _random_state() != drawn:
            raise Lost(
                "its own forward draws random numbers that do not depend on its input",
                "random numbers of the input's size (torch.rand_like(x)), or nn.Dropout",
                "put what is random into a module of its own",
            )
        for name, tensor in (*buffers.items(), *parameters.items()):
            if {**module._buffers, **module._parameters}.get(name) is not tensor:
                raise Lost(
                    f"its own forward exchanges its tensor '{name}'",
                    "a forward that changes no parameter and no buffer",
                    f"put what changes '{name}' into a module of its own",
                )
    finally:
        if _random_state() != drawn:
            torch.default_generator.set_state(_tensor(drawn[0]))
            random.setstate(drawn[1])
        module._buffers.update(buffers)
        module._parameters.update(parameters)


def _random_state() -> tuple[bytes, Any]:
    return torch.default_generator.get_state().numpy().tobytes(), random.getstate()


def _tensor(state: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(state), dtype=torch.uint8)


def refuse_writing(kind: str, target: Any, args: tuple[Any, ...]) -> None:
    """Refuse to write in place into a tensor that the module keeps.

    Raises:
        Lost: It is such a write.
    """
    word = target if kind == "call_method" else getattr(target, "__name__", "")
    in_place = kind == "call_method" and word.endswith("_") and not word.endswith("__")
    if (in_place or word in ("iadd", "isub", "imul", "itruediv")) and args:
        written = args[0]
        if isinstance(written, fx.Node) and written.op == "get_attr":
            raise Lost(
                f"its own forward writes into its tensor '{written.target}'",
                "a forward that changes no parameter and no buffer",
                f"put what changes '{written.target}' into a module of its own",
            )


def written_constant(module: nn.Module, node: fx.Node) -> str:
    """Return the values of a tensor that a forward writes down itself; else nothing."""
    if node.op != "get_attr" or not str(node.target).startswith("_tensor_constant"):
        return ""
    value = getattr(module, str(node.target), None)
    plain = isinstance(value, torch.Tensor) and not value.is_meta
    return str(value.tolist()) if plain and value is not None else ""
