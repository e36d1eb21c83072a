"""Linear layers of several members as one: each product in the fastest way that keeps its bits.

A library of matrix products adds up in an order that depends on the shape of the matrices, and on how
they lie in memory: one product over all members may differ from each member's own in the last bits. So
ways are tried once on random numbers that lie alike, and the first one is taken that gives what each
member alone gives.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.model.compiled import CompiledModel, Half

Way = Callable[..., Any]

CACHE_LINE = 64  # bytes; where a tensor begins in one decides kernels as well
TRIED = 2**12  # numbers that a way has to have right, in so many draws at most
DRAWS = 64

# One tensor in, one out, each number for itself, by arithmetic alone: the same bits in any shape.
ARITHMETIC = frozenset({"Identity", "ReLU", "ReLU6", "LeakyReLU", "Hardtanh"})
# The same, but a kernel computes the numbers that are left beside whole vectors by another function.
BY_VECTORS = frozenset({
    "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus", "Hardswish", "Hardsigmoid",
    "Hardshrink", "Softshrink", "Tanhshrink", "Tanh", "Sigmoid", "LogSigmoid", "Softsign",
})  # fmt: skip


@dataclass
class Ways:
    """Chooses among ways of computing the same.

    Attributes:
        exact: Take the first that gives each member's own bits; else the first of all.
        chosen: Which one was taken, by what is computed and its shapes.
    """

    exact: bool = True
    chosen: dict[Any, Way] = field(default_factory=dict)

    def choose(self, what: str, ways: Sequence[Way], *given: Tensor) -> Way:
        """Return a way.

        Args:
            what: Names what is computed.
            ways: The fastest first; the last one computes each member by itself, as torch does.
            given: What it will be given.
        """
        if not self.exact:
            return ways[0]
        key = (what, *map(_layout, given))
        if key not in self.chosen:
            equal = (way for way in ways if _agree(way, ways[-1], given))
            self.chosen[key] = next(equal, ways[-1])
        return self.chosen[key]


def _agree(way: Way, wanted: Way, given: Sequence[Tensor]) -> bool:
    """Tell whether two ways give the same bits; small ones are tried often, to see rare differences."""
    if way is wanted:
        return True
    draw = torch.Generator().manual_seed(0)  # never the one that dropout is drawn from
    numbers, draws = 0, 0
    while numbers < TRIED and draws < DRAWS:
        tried = [_random(tensor, draw) for tensor in given]
        found, alone = way(*tried), wanted(*tried)
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


def _own(rows: Tensor) -> list[Tensor]:
    """Return each member's part of a tensor as it lies where it is alone."""
    return [own.clone(memory_format=torch.contiguous_format) for own in rows]


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, Tensor):
        return torch.equal(found, wanted)
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


class MemberLinear(nn.Module):
    """nn.Linear of each member.

    Shape:
        in: (N, D), the same for all members, or (K, N, D)   out: (K, N, O)

    Args:
        layer: Where every member begins.
        members: How many.
        ways: Chooses how to multiply.
    """

    def __init__(self, layer: nn.Linear, members: int, ways: Ways) -> None:
        super().__init__()
        self.ways = ways
        own = layer.weight.detach()
        self.weight = nn.Parameter(own.expand(members, *own.shape).clone())
        self.bias = None
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach().expand(members, -1).clone())

    def forward(self, rows: Tensor) -> Tensor:
        """Compute every member's outputs."""
        found: Tensor = _Linear.apply(rows, self.weight, self.bias, self.ways)
        return found


class SharedDropout(nn.Module):
    """Dropout of what each member has of its own: members of one seed draw the same mask."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, rows: Tensor) -> Tensor:
        """Set the same places to 0 in every member.

        Shape:
            in: (N, D), the same for all members, or (K, N, D)   out: as in
        """
        if not self.training or not self.p:
            return rows
        if rows.dim() == 2:
            return F.dropout(rows, self.p)
        one = torch.ones(rows.shape[1:], dtype=rows.dtype, device=rows.device)  # contiguous
        return rows * F.dropout(one, self.p)


class OneByOne(nn.Module):
    """An activation of each member by itself.

    Args:
        activation: One of `BY_VECTORS`.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, rows: Tensor) -> Tensor:
        """Compute every member's numbers.

        Shape:
            in: (N, D), the same for all members, or (K, N, D)   out: as in
        """
        if rows.dim() == 2:
            shared: Tensor = self.activation(rows)
            return shared
        return torch.stack([self.activation(own.contiguous()) for own in rows])


class _Linear(torch.autograd.Function):
    """out = rows @ weight^T + bias, each product in its own way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, ways: Ways) -> Tensor:
        rows = rows.contiguous()  # as each member's own are: kernels depend on it, too
        ctx.save_for_backward(rows, weight)
        ctx.ways, ctx.has_bias = ways, bias is not None
        given = [rows, weight] if bias is None else [rows, weight, bias]
        several = _WIDE if rows.dim() == 2 else ()
        found: Tensor = ways.choose("linear", (*several, _batched, _alone), *given)(*given)
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (rows, weight), (grad,) = ctx.saved_tensors, grads
        several = (_weight_grad_wide,) if rows.dim() == 2 else ()
        of_weight = (*several, _weight_grad_batched, _weight_grad_alone)
        to_weight = ctx.ways.choose("weight", of_weight, grad, rows)(grad, rows)
        to_bias, to_rows = None, None
        if ctx.has_bias:
            to_bias = ctx.ways.choose("bias", (_bias_grad, _bias_grad_alone), grad)(grad)
        if ctx.needs_input_grad[0]:
            of_rows = (torch.bmm, _rows_grad_alone)
            to_rows = ctx.ways.choose("rows", of_rows, grad, weight)(grad, weight)
        return to_rows, to_weight, to_bias, None


# (N, D) or (K, N, D), (K, O, D), (K, O) -> (K, N, O)


def _wide_turned(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute all outputs by one product, samples last, as the batched losses read them."""
    every = weight.flatten(0, 1)
    turned = rows.t()
    wide = every @ turned if bias is None else torch.addmm(bias.reshape(-1, 1), every, turned)
    return wide.view(*weight.shape[:2], -1).transpose(1, 2)


def _wide(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute all outputs by one product."""
    wide = F.linear(rows, weight.flatten(0, 1), None if bias is None else bias.flatten())
    return wide.view(len(rows), *weight.shape[:2]).transpose(0, 1)


_WIDE = (_wide_turned, _wide)


def _batched(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    each = rows if rows.dim() == 3 else rows.expand(len(weight), *rows.shape)
    turned = weight.transpose(1, 2)
    if bias is None:
        return torch.bmm(each, turned)
    return torch.baddbmm(bias.unsqueeze(1), each, turned)


def _alone(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    each = _own(rows) if rows.dim() == 3 else [rows] * len(weight)
    biases = [None] * len(weight) if bias is None else _own(bias)
    given = zip(each, _own(weight), biases, strict=True)
    return torch.stack([F.linear(own, matrix, one) for own, matrix, one in given])


# (K, N, O), (N, D) or (K, N, D) -> (K, O, D)


def _weight_grad_wide(grad: Tensor, rows: Tensor) -> Tensor:
    wide = grad.transpose(1, 2).flatten(0, 1) @ rows
    return wide.view(len(grad), -1, rows.shape[1])


def _weight_grad_batched(grad: Tensor, rows: Tensor) -> Tensor:
    each = rows if rows.dim() == 3 else rows.expand(len(grad), *rows.shape)
    return torch.bmm(grad.transpose(1, 2), each)


def _weight_grad_alone(grad: Tensor, rows: Tensor) -> Tensor:
    each = _own(rows) if rows.dim() == 3 else [rows] * len(grad)
    return torch.stack([g.t() @ r for g, r in zip(_own(grad), each, strict=True)])


def _bias_grad(grad: Tensor) -> Tensor:
    return grad.sum(1)


def _bias_grad_alone(grad: Tensor) -> Tensor:
    return torch.stack([one.sum(0) for one in _own(grad)])


def _rows_grad_alone(grad: Tensor, weight: Tensor) -> Tensor:
    return torch.stack([g @ w for g, w in zip(_own(grad), _own(weight), strict=True)])


def misfit(model: CompiledModel) -> str:
    """Say why what trains is no chain of linear layers that several members can train as one; else ''."""
    if len(model.boundary) != 1 or len(model.summary.outputs) != 1:
        return "what trains reads or returns more than one tensor, or nothing is frozen"
    kinds = _chain(model)
    if isinstance(kinds, str):
        return kinds
    first = next((place for place, (kind, _) in enumerate(kinds) if kind == "Linear"), len(kinds))
    for place, (kind, shape) in enumerate(kinds):
        of_rows = shape.count(",") == 1  # (N, D)
        # What stands before the first linear layer reads what all members share.
        replaced = kind in ("Linear", "Dropout") or kind in BY_VECTORS
        known = of_rows if replaced else place < first or kind in ARITHMETIC
        if not known:
            return f"what trains has a layer {kind} of {shape}, and is no chain of linear layers"
    return _misfit_of_tensors(model.suffix_module())


def _chain(model: CompiledModel) -> list[tuple[str, str]] | str:
    """Return kind and shape of each vertex behind the boundary, in order; or why it is no chain."""
    rows = {row.name: row for row in model.summary.vertices}
    (name,), end = model.summary.outputs, model.boundary[0].vertex
    found: list[tuple[str, str]] = []
    while name != end:
        row = rows[name]
        if len(row.reads) != 1 or row.reads[0] not in rows:
            return f"{name} reads {len(row.reads)} layers, and what trains is no chain"
        found.insert(0, (row.kind, row.shape))
        name = row.reads[0]
    return found


def _misfit_of_tensors(half: Half) -> str:
    linear = [module for module in half.modules() if type(module) is nn.Linear]
    own = {id(p) for module in linear for p in (module.weight, module.bias) if p is not None}
    if any(id(p) not in own or not p.requires_grad for p in half.parameters()):
        return "what trains has weights beside those of linear layers, or some of those are frozen"
    if not linear or any(True for _ in half.buffers()):
        return "what trains keeps statistics, or has no linear layer"
    return ""


def batched_suffix(model: CompiledModel, members: int, ways: Ways) -> Half:
    """Return what trains as a module of its own, with the weights of several members.

    Shape:
        in: one (N, D...), the same for all members   out: (K, N, C)

    Args:
        model: One for which `misfit` says nothing; it stays as it is.
        members: How many; each begins with the model's own weights.
        ways: Chooses how to multiply.
    """
    half = copy.deepcopy(model.suffix_module())
    for name, module in list(half.named_modules()):
        new: nn.Module | None = None
        if type(module) is nn.Linear:
            new = MemberLinear(module, members, ways)
        elif type(module) is nn.Dropout:
            new = SharedDropout(module.p)
        elif ways.exact and type(module).__name__ in BY_VECTORS:
            new = OneByOne(module)
        if new is not None:
            owner, _, leaf = name.rpartition(".")
            _put(half.get_submodule(owner), leaf, new, module)
    return half


def _put(owner: nn.Module, leaf: str, new: nn.Module, old: nn.Module) -> None:
    """Put a module in another's place; what the base put under it stays under it."""
    for name, child in old.named_children():
        new.add_module(name, child)
    owner._modules[leaf] = new


def weights_of(half: Half) -> Mapping[str, nn.Parameter]:
    """Return the weights of all members by the model's names; the first dimension is the members."""
    return dict(half.named_parameters())
