"""How many images a pass needs so that no row depends on its place in it.

torch computes exp and the like with vector instructions, and what is left over at the end of a tensor,
or of one thread's share of it, with other code and other last bits. Where nothing is left over, a row
is the same at any place. Measured with silu, sigmoid, gelu (tanh), elu, selu, celu, mish, softplus and
pow: rows of 7 x 29 differ, of 32 x 29 never; of 32 x 4,099 on two threads they differ, of 64 never.
"""

from __future__ import annotations

import torch
from torch import nn

from tlcompile.model.compiled import CompiledModel
from tlcompile.model.summary import vertices_behind

LANES = 32  # floats that one step takes: two registers of AVX-512; AVX2 takes 16
GRAIN = 32_768  # elements for which torch takes one more thread (at::internal::GRAIN_SIZE)
MOST = 64  # times LANES: beyond it the size that was asked for is as good

# Their vector code and their scalar code may differ; sums, products and comparisons never do.
TRANSCENDENTAL = frozenset(
    {
        *("silu", "gelu", "sigmoid", "tanh", "elu", "selu", "celu", "mish", "softplus"),
        *("logsigmoid", "tanhshrink", "softsign", "glu", "rrelu"),
        *("pow", "exp", "expm1", "exp2", "log", "log1p", "log2", "erf", "sqrt", "rsqrt"),
        *("sin", "cos", "tan", "atan", "sinh", "cosh"),
    }
)


def pass_size(model: CompiledModel, wanted: int, device: torch.device) -> int:
    """Return the smallest pass of at least `wanted` images in which places never matter.

    Modules of other libraries count by what they return: what they compute inside is not seen.
    """
    if device.type != "cpu":
        return wanted  # a GPU computes each element alone
    rows = vertices_behind((one.vertex for one in model.boundary), model.summary.vertices)
    sizes = {row.num_bytes // 4 for row in rows if _may_differ(row.kind)}
    threads = torch.get_num_threads()
    for size in range(wanted, max(wanted, MOST * LANES) + 1):
        if all(_nothing_left(size * one, threads) for one in sizes):
            return size
    return wanted


def _may_differ(kind: str) -> bool:
    word = kind.lower().strip("_")
    return word in TRANSCENDENTAL or (kind[:1].isupper() and not hasattr(nn, kind))


def _nothing_left(elements: int, threads: int) -> bool:
    used = min(threads, -(-elements // GRAIN))
    share = -(-elements // used) if used else 0
    return share % LANES == 0 and elements % LANES == 0
