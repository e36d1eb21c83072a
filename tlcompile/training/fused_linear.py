"""Linear layers of several members as one: each product in the fastest way that keeps its bits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.training.fused_ways import Ways, own


class MemberLinear(nn.Module):
    """nn.Linear of each member.

    Shape:
        in: (N, D), the same for all members, or (K, N, D), or (K * N, D)   out: (K, N, O)

    Args:
        layer: Where every member begins.
        members: How many.
        ways: Chooses how to multiply.
        in_batch: How many members stand one after the other in the batch; None: they do not.
    """

    def __init__(
        self, layer: nn.Linear, members: int, ways: Ways, *, in_batch: int | None = None
    ) -> None:
        super().__init__()
        self.ways, self.in_batch = ways, in_batch
        weight = layer.weight.detach()
        self.weight = nn.Parameter(weight.expand(members, *weight.shape).clone())
        self.bias = None
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach().expand(members, -1).clone())

    def forward(self, rows: Tensor) -> Tensor:
        """Compute every member's outputs."""
        if self.in_batch is not None:
            rows = rows.view(self.in_batch, -1, rows.shape[1])
        found: Tensor = _Linear.apply(rows, self.weight, self.bias, self.ways)
        return found


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
    each = own(rows) if rows.dim() == 3 else [rows] * len(weight)
    biases = [None] * len(weight) if bias is None else own(bias)
    given = zip(each, own(weight), biases, strict=True)
    return torch.stack([F.linear(one, matrix, shift) for one, matrix, shift in given])


# (K, N, O), (N, D) or (K, N, D) -> (K, O, D)


def _weight_grad_wide(grad: Tensor, rows: Tensor) -> Tensor:
    wide = grad.transpose(1, 2).flatten(0, 1) @ rows
    return wide.view(len(grad), -1, rows.shape[1])


def _weight_grad_batched(grad: Tensor, rows: Tensor) -> Tensor:
    each = rows if rows.dim() == 3 else rows.expand(len(grad), *rows.shape)
    return torch.bmm(grad.transpose(1, 2), each)


def _weight_grad_alone(grad: Tensor, rows: Tensor) -> Tensor:
    each = own(rows) if rows.dim() == 3 else [rows] * len(grad)
    return torch.stack([g.t() @ r for g, r in zip(own(grad), each, strict=True)])


def _bias_grad(grad: Tensor) -> Tensor:
    return grad.sum(1)


def _bias_grad_alone(grad: Tensor) -> Tensor:
    return torch.stack([one.sum(0) for one in own(grad)])


def _rows_grad_alone(grad: Tensor, weight: Tensor) -> Tensor:
    return torch.stack([g @ w for g, w in zip(own(grad), own(weight), strict=True)])
