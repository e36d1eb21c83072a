"""What a layer does to widths: it decides one, follows what reaches it, or lets it through."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import torch
from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# By their common parents, which torch does not export.
BATCH_NORMS = nn.modules.batchnorm._NormBase  # instance norms, too

# Of the layers with a rule; a subclass with more of its own has none.
_OWN_TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


class Role(Enum):
    """What a module does to the width of what it reads."""

    DECIDES = auto()
    FOLLOWS = auto()
    PASSES = auto()  # has no tensors; its shape comes from running it
    UNKNOWN = auto()


@dataclass(frozen=True)
class Widths:
    """Input and output width of a layer: channels or features."""

    in_: int
    out: int


def role_of(module: nn.Module) -> Role:
    """Return what a module does to widths; UNKNOWN: it has tensors and no rule here."""
    if isinstance(module, nn.PReLU) and module.num_parameters == 1:
        return Role.PASSES
    if not _has_only(module, _OWN_TENSORS):
        return Role.UNKNOWN
    match module:
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return Role.FOLLOWS if is_depthwise(module) else Role.DECIDES
        case nn.Linear():
            return Role.DECIDES
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            return Role.DECIDES if module.groups == 1 else Role.UNKNOWN
        case nn.LayerNorm() | nn.GroupNorm() | nn.PReLU() | BATCH_NORMS():
            return Role.FOLLOWS
    return Role.PASSES if _has_only(module, set()) else Role.UNKNOWN


def _has_only(module: nn.Module, names: set[str]) -> bool:
    """Tell whether a module's tensors, buffers outside of the state dict included, are these.

    torch's own layers have no children: those of a region that an earlier run added are vertices.
    """
    alone = type(module).__module__.startswith("torch.nn.modules.") and bool(names)
    parameters = module.named_parameters(recurse=not alone)
    buffers = module.named_buffers(recurse=not alone)
    return {name for name, _ in (*parameters, *buffers)} <= names


def is_depthwise(module: nn.Module) -> bool:
    """Tell whether a convolution has one group a channel; such a one follows its input."""
    return isinstance(module, CONVOLUTIONS) and module.groups == module.in_channels > 1


def widths_of(module: nn.Module) -> Widths:
    """Return the widths of a layer that decides or follows."""
    match module:
        case nn.Linear():
            return Widths(module.in_features, module.out_features)
        case nn.GroupNorm():
            return Widths(module.num_channels, module.num_channels)
        case nn.PReLU():
            return Widths(module.num_parameters, module.num_parameters)
        case nn.LayerNorm():
            return Widths(module.normalized_shape[0], module.normalized_shape[0])
        case BATCH_NORMS():
            return Widths(module.num_features, module.num_features)
    return Widths(int(module.in_channels), int(module.out_channels))  # type: ignore[arg-type]


def channel_axis(module: nn.Module, dim: int) -> int:
    """Return where the channels of a layer's input and output are, in a batch of `dim` dimensions."""
    if isinstance(module, nn.Linear):
        return dim - 1
    # A subclass normalises over axis 1 (LayerNorm2d); torch's own over the last ones.
    if type(module) is nn.LayerNorm:
        return dim - len(module.normalized_shape)
    return 1


def divisor_of(module: nn.Module) -> int:
    """Return what both widths of a layer must be divisible by."""
    if isinstance(module, CONVOLUTIONS) and not is_depthwise(module):
        return module.groups
    return module.num_groups if isinstance(module, nn.GroupNorm) else 1


def following(module: nn.Module, in_: int) -> Widths:
    """Return the widths of a layer that follows, where its input is `in_` wide."""
    own = widths_of(module)
    return Widths(in_, in_ * own.out // own.in_)


def with_widths(module: nn.Module, widths: Widths) -> nn.Module:
    """Copy a layer with its own type, settings and children, and empty tensors of other widths."""
    made = copy.deepcopy(module)
    old = widths_of(module)
    for name, value in _attributes(module, widths).items():
        setattr(made, name, value)
    for name, parameter in made.named_parameters(recurse=False):
        empty = parameter.new_empty(_shape(module, name, parameter, old, widths))
        made._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
    for name, buffer in made.named_buffers(recurse=False):
        if buffer.dim():
            made._buffers[name] = buffer.new_empty(_shape(module, name, buffer, old, widths))
    return made


def _attributes(module: nn.Module, widths: Widths) -> dict[str, Any]:
    match module:
        case nn.Linear():
            return {"in_features": widths.in_, "out_features": widths.out}
        case nn.GroupNorm():
            return {"num_channels": widths.out}
        case nn.PReLU():
            return {"num_parameters": widths.out}
        case nn.LayerNorm():
            return {"normalized_shape": (widths.out, *module.normalized_shape[1:])}
        case BATCH_NORMS():
            return {"num_features": widths.out}
    channels = {"in_channels": widths.in_, "out_channels": widths.out}
    return {**channels, "groups": widths.in_} if is_depthwise(module) else channels


def _shape(
    module: nn.Module, name: str, tensor: torch.Tensor, old: Widths, new: Widths
) -> tuple[int, ...]:
    """Return the new shape of one tensor of a layer."""
    shape = tuple(tensor.shape)
    if name == "bias" or tensor.dim() == 1:
        return (new.out, *shape[1:])
    if isinstance(module, TRANSPOSED):
        return (new.in_, new.out, *shape[2:])
    if isinstance(module, nn.LayerNorm) or is_depthwise(module):
        return (new.out, *shape[1:])
    return (new.out, shape[1] * new.in_ // old.in_, *shape[2:])


def keep_overlap(new: nn.Module, old: nn.Module, rows: torch.Tensor, columns: torch.Tensor) -> None:
    """Copy what a layer of the base and its resized copy have in common.

    Args:
        new: The copy, initialised.
        old: The base's layer.
        rows: For each output of the copy, the base's output that it was; -1: it is new.
        columns: The same for its inputs.
    """
    theirs = dict((*old.named_parameters(), *old.named_buffers()))
    with torch.no_grad():
        for name, tensor in (*new.named_parameters(), *new.named_buffers()):
            source = theirs[name]
            if tensor.dim() == 0:
                tensor.copy_(source)  # BatchNorm's step counter
            elif tensor.dim() == 1 or isinstance(new, nn.LayerNorm):
                kept = rows >= 0
                tensor[kept] = source[rows[kept]]
            else:
                _keep_weights(new, old, tensor, source, rows, columns)


def _keep_weights(
    new: nn.Module,
    old: nn.Module,
    weight: torch.Tensor,
    source: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> None:
    """Copy the entries of a weight (out, in / groups, ...) whose row and column both were there."""
    if isinstance(new, TRANSPOSED):
        weight, source = weight.transpose(0, 1), source.transpose(0, 1)
    if _groups(new) == _groups(old) == 1:
        kept_rows, kept_columns = (rows >= 0).nonzero(), (columns >= 0).nonzero()[:, 0]
        weight[kept_rows, kept_columns] = source[rows[kept_rows], columns[kept_columns]]
        return
    # A group has its own inputs, and groups shift with the widths.
    group = torch.arange(len(rows)) // (len(rows) // _groups(new))
    old_group = rows // (source.shape[0] // _groups(old))
    inputs = columns[group[:, None] * weight.shape[1] + torch.arange(weight.shape[1])]
    place = inputs - old_group[:, None] * source.shape[1]
    kept = (rows[:, None] >= 0) & (inputs >= 0) & (place >= 0) & (place < source.shape[1])
    row, column = kept.nonzero(as_tuple=True)
    weight[row, column] = source[rows[row], place[row, column]]


def _groups(module: nn.Module) -> int:
    return int(getattr(module, "groups", 1))
