"""Processes that train one model together, each on its own device. One process alone is the same code.

A global batch is cut into one part a rank; gradients are averaged, so that every rank takes the step
that one process would take on the whole batch. The first rank alone writes and speaks.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# A rank that dies ends the job at once, through whoever started it; what remains is patience for a
# rank that computes features, or downloads, while the others wait.
PATIENCE = timedelta(hours=24)

# Not to send running statistics at every step: torch has a new word for it, and the old one warns.
_WORDS = inspect.signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _WORDS else "broadcast_buffers": False
}


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: Its number, from 0.
        world: How many there are.
        local: Its number on this machine: which of its devices it uses.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Tell whether it is the rank that writes and speaks."""
        return self.rank == 0

    def device(self, kind: str) -> torch.device:
        """Return this rank's device of a kind: `cuda` is the local rank's own."""
        if kind == "cuda" and self.world > 1:
            return torch.device(kind, self.local)
        return torch.device(kind)

    def part(self, batch: Sequence[int], least: int = 1) -> Sequence[int]:
        """Return this rank's part of a global batch: contiguous, and as even as possible.

        A rank that gets nothing computes on borrowed samples, with a share of 0: the others wait
        for its gradients.

        Args:
            batch: Samples of all ranks together.
            least: A rank gets so many, or none (BatchNorm refuses to learn from a single one).
        """
        parts = max(1, min(self.world, len(batch) // least))
        start, end = (len(batch) * min(r, parts) // parts for r in (self.rank, self.rank + 1))
        return batch[start:end]

    def share(self, local: int, total: int) -> float:
        """Return what the mean loss of `local` samples is multiplied by before `backward`.

        The average of the gradients over all ranks, and their sum over micro-batches, are then the
        gradient of the mean over all `total` samples.
        """
        return local * self.world / total

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return a module whose `backward` averages the gradients of all ranks.

        It is called in place of the module, and taken anew where other parameters train. Frozen
        parameters are not sent. Running statistics of norms are each rank's own until
        `same_buffers`.
        """
        if self.world == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        return DistributedDataParallel(module, gradient_as_bucket_view=True, **_OWN_BUFFERS)

    @contextlib.contextmanager
    def averaging(self, module: nn.Module, last: bool) -> Iterator[None]:
        """Send gradients after the last micro-batch of a step alone; `forward` stands inside, too."""
        inner: Any = getattr(module, "_orig_mod", module)  # inside what torch.compile returns
        waits = isinstance(inner, DistributedDataParallel) and not last
        with inner.no_sync() if waits else contextlib.nullcontext():
            yield

    def same_buffers(self, buffers: Iterable[Tensor]) -> None:
        """Give every rank the first rank's running statistics, before they judge or are averaged."""
        if self.world > 1:
            for buffer in buffers:
                dist.broadcast(buffer, 0)

    def sum(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums over all ranks; each rank gives the same names and shapes."""
        found = {name: tensor.clone() for name, tensor in tensors.items()}
        if self.world > 1:
            for tensor in found.values():
                dist.all_reduce(tensor)
        return found

    def largest(self, mine: int) -> int:
        """Return the largest number that any rank gives; each asks at the same place."""
        if self.world == 1:
            return int(mine)
        number = torch.tensor(int(mine))
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number)

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return, on the first rank, what all ranks give, each under names of its own."""
        if self.world == 1:
            return dict(tensors)
        mine = {name: tensor.cpu() for name, tensor in tensors.items()}
        found: list[Any] = [None] * self.world
        dist.gather_object(mine, found if self.is_first else None)
        return {name: tensor for one in found if one for name, tensor in one.items()}

    def first_says(self, value: Any) -> Any:
        """Return what the first rank gives, as plain data; what the others give is not looked at."""
        if self.world == 1:
            return value
        told = [json.dumps(value) if self.is_first else None]
        dist.broadcast_object_list(told, 0, device=torch.device("cpu"))
        assert told[0] is not None
        return json.loads(told[0])

    def barrier(self) -> None:
        """Wait for all ranks. On the CPU: a GPU's barrier would use whichever device is current."""
        if self.world > 1:
            dist.all_reduce(torch.zeros(()))

    @contextlib.contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the first rank do it, then the others: they find what it downloaded or computed."""
        if not self.is_first:
            self.barrier()
        yield
        if self.is_first:
            self.barrier()

    def close(self) -> None:
        """Leave when all are done; nothing of the above may be called afterwards."""
        if self.world > 1:
            self.barrier()
            dist.destroy_process_group()


ALONE = Ranks()


def is_rank() -> bool:
    """Tell whether this process was started as one of several, by torchrun or the like."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def join_ranks() -> Ranks:
    """Meet the other ranks, as the environment says: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR."""
    if not is_rank():
        return ALONE
    # Tensors choose their way by where they are; NCCL starts with the first tensor on a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
