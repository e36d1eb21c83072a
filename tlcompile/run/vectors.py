"""One vector an image, from the rows that a run would train on: maps are averaged over their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlcompile.features.sources import Source, chunk_batches

BATCH = 16  # images; maps of an early layer take megabytes each


def vectors_of(
    source: Source, names: Sequence[str], advance: Callable[[int], Any]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[Any]]:
    """Read every image's rows once; return the vectors of each boundary, and the targets.

    Args:
        source: Where the rows are, in the order of the images.
        names: Of the boundary tensors, in their order.
        advance: Called with the number of images done.
    """
    pooled_rows: list[list[Tensor]] = [[] for _ in names]
    targets: list[Tensor] = []
    order = range(len(source.targets))
    for rows, some in source.batches(chunk_batches(order, BATCH), 1):
        for kept, tensor in zip(pooled_rows, rows, strict=True):
            kept.append(pooled(tensor))
        targets.append(some.cpu())
        advance(len(some))
    found = (torch.cat(parts).numpy() for parts in pooled_rows)
    return dict(zip(names, found, strict=True)), torch.cat(targets).numpy()


def pooled(rows: Tensor) -> Tensor:
    """Average over places; what is left are channels, or the numbers of a token.

    Shape:
        in: (N, C, H, W), (N, H, W, C) where H = W != C, (N, tokens, C), (N, C) or (N,)
        out: (N, C) float64, on the CPU
    """
    rows = rows.detach()
    if rows.device.type == "mps":  # it has no float64
        rows = rows.cpu()
    if rows.dim() < 3:
        return rows.reshape(len(rows), -1).double().cpu()
    if rows.dim() == 3:
        return rows.mean(1, dtype=torch.float64).cpu()
    sides = rows.shape[1:]
    last = rows.dim() == 4 and sides[0] == sides[1] != sides[2]
    places = (1, 2) if last else tuple(range(2, rows.dim()))
    return rows.mean(places, dtype=torch.float64).cpu()
