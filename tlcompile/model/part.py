"""The part of a module tree that a program uses: the same modules, in containers of their own."""

from __future__ import annotations

import copy
from collections.abc import Set as AbstractSet

from torch import nn


def part_of(
    module: nn.Module, used: AbstractSet[str], others: AbstractSet[str] = frozenset(), at: str = ""
) -> nn.Module:
    """Return a tree that shares modules and tensors with another, under the same names.

    Args:
        module: The tree.
        used: Names of the modules that are called, and of the tensors that are read.
        others: Names of modules to leave out, though they stand inside of a used one: a norm is the
            child of its convolution where an earlier run added both.
        at: The place of `module` in the whole tree, with a dot behind; for the recursion.
    """
    called = at[:-1] in used
    if called and not any(name.startswith(at) for name in others):
        return module
    part = copy.copy(module) if called else nn.Module()
    if not called:
        part._parameters = {n: p for n, p in module._parameters.items() if at + n in used}
        part._buffers = {n: b for n, b in module._buffers.items() if at + n in used}
        hidden = module._non_persistent_buffers_set
        part._non_persistent_buffers_set = {n for n in hidden if n in part._buffers}
    part._modules = {}
    for name, child in module._modules.items():
        inner = at + name
        whole = called and inner not in others
        if child is not None and (whole or any(f"{u}.".startswith(f"{inner}.") for u in used)):
            within = used | {inner} if whole else used
            part._modules[name] = part_of(child, within, others, f"{inner}.")
    return part
