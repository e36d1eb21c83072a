"""Ways of computing the same for several members, and the choice of the fastest that keeps its bits.

A library of matrix products adds up in an order that depends on the shape of the matrices, and on how
they lie in memory: one product over all members may differ from each member's own in the last bits. So
ways are tried once on random numbers that lie alike, and the first one is taken that gives what each
member alone gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Way = Callable[..., Any]
Seen = Callable[[Way, Sequence[Tensor]], Any]

CACHE_LINE = 64  # bytes; where a tensor begins in one decides kernels as well
TRIED = 2**12  # numbers that a way has to have right, in so many draws at most
DRAWS = 64


def _called(way: Way, given: Sequence[Tensor]) -> Any:
    return way(*given)


@dataclass
class Ways:
    """Chooses among ways of computing the same.

    Attributes:
        exact: Take the first that gives each member's own bits; else the first of all.
        chosen: Which one was taken, by what is computed and its shapes.
    """

    exact: bool = True
    chosen: dict[Any, Way] = field(default_factory=dict)

    def choose(self, what: str, ways: Sequence[Way], *given: Tensor, seen: Seen = _called) -> Way:
        """Return a way.

        Args:
            what: Names what is computed.
            ways: The fastest first; the last one computes each member by itself, as torch does.
            given: What it will be given.
            seen: What of a way has to be right; default: what it returns.
        """
        if not self.exact or len(ways) == 1:
            return ways[0]
        key = (what, *map(_layout, given))
        if key not in self.chosen:
            equal = (way for way in ways if _agree(way, ways[-1], given, seen))
            self.chosen[key] = next(equal, ways[-1])
        return self.chosen[key]


def _agree(way: Way, wanted: Way, given: Sequence[Tensor], seen: Seen) -> bool:
    """Tell whether two ways give the same bits; small ones are tried often, to see rare differences."""
    if way is wanted:
        return True
    draw = torch.Generator().manual_seed(0)  # never the one that dropout is drawn from
    numbers, draws = 0, 0
    while numbers < TRIED and draws < DRAWS:
        tried = [_random(tensor, draw) for tensor in given]
        found, alone = seen(way, tried), seen(wanted, tried)
        if not _same(found, alone):
            return False
        numbers, draws = numbers + _largest(alone), draws + 1
    return True


def _largest(found: Any) -> int:
    return found.numel() if isinstance(found, Tensor) else max(map(_largest, found))


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    """Return what kernels are chosen by: shape, strides, and where it begins in a cache line."""
    begin = tensor.data_ptr() % CACHE_LINE // tensor.element_size()
    return tensor.shape, tensor.stride(), begin, tensor.dtype, tensor.device


def _random(like: Tensor, draw: torch.Generator) -> Tensor:
    """Return random numbers that lie as a tensor does."""
    if not like.is_floating_point():
        return like.clone()
    _, strides, begin, _, _ = _layout(like)
    if 0 in strides:  # of an expanded one, which nobody writes to
        strides = torch.empty(like.shape, device="meta").stride()
    held = like.new_empty(begin + like.numel()).as_strided(like.shape, strides, begin)
    return held.copy_(torch.randn(like.shape, generator=draw))


def own(rows: Tensor) -> list[Tensor]:
    """Return each member's part of a tensor as it lies where it is alone."""
    return [one.clone(memory_format=torch.contiguous_format) for one in rows]


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return torch.equal(found, wanted)
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))
