"""Cut the trainable part of a model over the ranks, by torch's FSDP2. Nobody else knows of its tensors.

A tensor that is cut has the shape of the whole one, and a part of its numbers on each rank. What
works number by number takes it as it is; all else asks for the whole one, on all ranks at the same
place: it is gathered by all of them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tlcompile.model.compiled import CompiledModel
from tlcompile.training.ranks import Ranks

# Layers with fewer numbers are gathered together, once a forward: a message costs more than they do.
ALONE_FROM = 1 << 15


def sharded(model: CompiledModel, ranks: Ranks, device: torch.device) -> CompiledModel:
    """Return a copy whose trainable part is cut: parameters, gradients, what an optimizer keeps.

    The model itself stays whole, where it is; what its frozen part alone uses is shared.

    Args:
        model: As the phase freezes it.
        ranks: All of them call this.
        device: Of the parts.
    """
    # Here, because who trains on one device does without: 1 s.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    moving = model.suffix_targets
    tensors = [*model.named_parameters(), *model.named_buffers()]
    others = {id(t): t for name, t in tensors if not is_below(name, moving)}
    copied = copy.deepcopy(model, dict(others))
    how: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (ranks.world,)),
        "reshard_after_forward": True,
    }
    for parameter in copied.parameters():
        if id(parameter) not in others:
            parameter.data = parameter.data.contiguous()  # it cuts no other memory format
    for layer in _large(copied, moving):
        fully_shard(layer, **how)
    ignored = {p for p in copied.parameters() if id(p) in others}
    fully_shard(copied.tree, **how, ignored_params=ignored)
    return copied


def is_below(name: str, targets: frozenset[str]) -> bool:
    """Tell whether a tensor is one of these, or stands in one of these modules."""
    parts = name.split(".")
    return any(".".join(parts[:end]) in targets for end in range(1, len(parts) + 1))


def _large(model: CompiledModel, targets: frozenset[str]) -> Iterator[nn.Module]:
    """Yield the layers that are gathered one by one, the inner ones first; none shares a tensor."""
    uses = Counter(id(p) for _, p in model.tree.named_parameters(remove_duplicate=False))
    layers = {n: m for n, m in model.tree.named_modules() if n in targets}
    for name in sorted(layers, key=lambda name: -name.count(".")):
        own = list(layers[name].parameters())
        shares = any(uses[id(p)] > 1 for p in own)
        if not shares and sum(p.numel() for p in own) >= ALONE_FROM:
            yield layers[name]


def is_cut(tensor: Tensor) -> bool:
    """Tell whether a tensor has but a part of its numbers on this rank."""
    return hasattr(tensor, "full_tensor")  # DTensor's own; its import would cost a second


def is_sharded(model: nn.Module) -> bool:
    """Tell whether tensors of a model are cut."""
    return any(map(is_cut, model.parameters()))


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, in the tensor's own memory; all of one that is not cut."""
    found: Any = tensor
    return found.to_local() if is_cut(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every rank has to ask."""
    found: Any = tensor.detach()
    return found.full_tensor() if is_cut(tensor) else tensor


@torch.no_grad()
def gather_into(model: CompiledModel, cut: CompiledModel) -> None:
    """Give a model what the copy that `sharded` made of it has learned; every rank has to ask."""
    state = model.state_dict()
    for name, tensor in cut.state_dict().items():
        if is_below(name, model.suffix_targets):
            state[name].copy_(whole(tensor))


def bring_frozen_part(model: CompiledModel, device: torch.device) -> None:
    """Bring what the frozen part computes with to a device, and all else to the CPU."""
    model.cpu()
    for tensor in frozen_part(model).values():
        tensor.data = tensor.data.to(device)


def frozen_part(model: CompiledModel) -> dict[str, Tensor]:
    """Return the tensors that the frozen part computes with, by name."""
    targets = frozenset(model.prefix_program.targets)
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor for name, tensor in tensors if is_below(name, targets)}


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors whole: those that are cut one after the other, on the CPU. Every rank asks."""
    found = dict(tensors)
    for name in sorted(found):  # a file gives its tensors in another order to each process
        if is_cut(found[name]):
            found[name] = whole(found[name]).cpu()
    return found


def like(tensor: Tensor, given: Tensor) -> Tensor:
    """Return a whole tensor cut as another one of its shape is; every rank gives the same."""
    if not is_cut(tensor) or given.shape != tensor.shape:
        return given
    from torch.distributed.tensor import distribute_tensor

    found: Any = tensor
    there = given.to(found.device)
    cut = distribute_tensor(there, found.device_mesh, found.placements, src_data_rank=None)
    return cut.clone()  # else it keeps all of `there` alive
