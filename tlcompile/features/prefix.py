"""Run the frozen prefix over padded chunks, always of one size. Knows nothing of labels or epochs.

Features depend on the batch shape in the last bits: 1 to 8 images against 32 differ in all rows of
most models. Padding never matters, the place of a row only as features/pass_size.py says. So every
image, live or cached, in training or in prediction, goes through in a chunk of exactly `chunk_size`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from tlcompile.data.loading import Pair
from tlcompile.errors.graph import MixedSamplesError
from tlcompile.features.layout import joined, packed, taken
from tlcompile.model.compiled import CompiledModel

T = TypeVar("T")

Rows = tuple[Tensor, ...]  # one tensor (N, ...) for each boundary
Loader = Callable[[Sequence[Pair]], Tensor]  # -> images (N, C, H, W)


@dataclass(frozen=True)
class Prefix:
    """The frozen part of a model, ready to be run.

    Attributes:
        model: The compiled model; without a frozen part, images are their own features.
        chunk_size: Images a pass.
        device: Where to compute.
        hard: The frozen part compiled for speed; None: the model's own, which is `exact`.
    """

    model: CompiledModel
    chunk_size: int
    device: torch.device
    hard: Callable[..., Rows] | None = None
    _proved: list[bool] = field(default_factory=list, repr=False, compare=False)

    def __call__(self, *inputs: Tensor) -> Rows:
        """Compute the boundary rows of images, in order, in the layout that they came in.

        Shape:
            in: (N, C, H, W), any N; as many as the model has inputs
            out: one (N, *shape) for each boundary, on `device`

        Raises:
            MixedSamplesError: A row depends on the images beside it.
        """
        if not self.model.boundary:
            return tuple(tensor.to(self.device) for tensor in inputs)
        cuts = list(range(self.chunk_size, len(inputs[0]), self.chunk_size))
        parts = zip(*(torch.tensor_split(tensor, cuts) for tensor in inputs), strict=True)
        chunks = [self._chunk(part) for part in parts]
        return join(chunks)

    def _chunk(self, inputs: Rows) -> Rows:
        count = len(inputs[0])
        padded = [self._padded(tensor) for tensor in inputs]
        # Exact is fp32, whatever is set around a call from Python.
        with torch.autocast(self.device.type, enabled=False):
            if not self._proved:
                self._refuse_mixing(padded)
            computed = (self.hard or self.model.prefix)(*padded)
        return tuple(packed(tensor[:count]) for tensor in computed)

    def _refuse_mixing(self, inputs: Sequence[Tensor]) -> None:
        """Compare the first image's rows with what they are beside a black one: to the bit alike.

        A GPU's kernels may add up in another order each time.
        """
        near = {} if self.device.type == "cpu" else {"rtol": 1e-3, "atol": 1e-4}
        first = [tensor[:1] for tensor in inputs]
        twice, beside = (
            self.model.prefix(*(torch.cat([one, other(one)]) for one in first))
            for other in (torch.clone, torch.zeros_like)
        )
        for boundary, one, other in zip(self.model.boundary, twice, beside, strict=True):
            if not _alike(one[:1], other[:1], **near):
                raise MixedSamplesError(name=boundary.vertex)
        self._proved.append(True)

    def _padded(self, tensor: Tensor) -> Tensor:
        padding = tensor[-1:].expand(self.chunk_size - len(tensor), *tensor.shape[1:])
        return torch.cat([tensor, padding]).to(self.device)


def _alike(one: Tensor, other: Tensor, rtol: float = 0.0, atol: float = 0.0) -> bool:
    return torch.allclose(one, other, rtol=rtol, atol=atol, equal_nan=True)


def gather(rows: Rows, indices: Sequence[int] | Tensor) -> Rows:
    """Take rows by index; the order of dimensions in memory stays as it was stored."""
    index = torch.as_tensor(indices, dtype=torch.long, device=rows[0].device)
    return tuple(taken(tensor, index) for tensor in rows)


def join(parts: Sequence[Rows]) -> Rows:
    """Put rows behind each other; the order of dimensions in memory stays."""
    return tuple(map(joined, zip(*parts, strict=True)))


def chunks_of(order: Sequence[T], size: int) -> Iterator[list[T]]:
    """Yield consecutive runs of an order."""
    for start in range(0, len(order), size):
        yield list(order[start : start + size])
