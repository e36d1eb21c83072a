"""What trains, as a module with the weights of several members: which models can be one, and how.

Members read the same rows. Behind the first layer with weights each has numbers of its own: behind a
convolution they stand one after the other in the batch, (K * N, C, H, W), where whatever reads sample
by sample works as it is; behind a linear layer in a dimension of their own, (K, N, D).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.model.compiled import CompiledModel, Half
from tlcompile.training.fused_conv import MemberConv
from tlcompile.training.fused_linear import MemberLinear
from tlcompile.training.fused_ways import Ways

# One tensor in, one out, each number for itself, by arithmetic alone: the same bits in any shape.
ARITHMETIC = frozenset({"Identity", "ReLU", "ReLU6", "LeakyReLU", "Hardtanh"})
# The same, but a kernel computes the numbers that are left beside whole vectors by another function.
BY_VECTORS = frozenset({
    "ELU", "SELU", "CELU", "GELU", "SiLU", "Mish", "Softplus", "Hardswish", "Hardsigmoid",
    "Hardshrink", "Softshrink", "Tanhshrink", "Tanh", "Sigmoid", "LogSigmoid", "Softsign",
})  # fmt: skip
# Each map for itself; how a kernel adds up may depend on how many there are.
POOLS = frozenset({"AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "MaxPool2d"})
FLATTENS = frozenset({"Flatten", "flatten"})
WEIGHTED = frozenset({"Linear", "Conv2d"})


class Form(Enum):
    """How the numbers stand that a layer reads."""

    SHARED = "the same for all members: (N, ...)"
    IN_BATCH = "one member after the other: (K * N, ...)"
    APART = "members in a dimension of their own: (K, N, D)"


class _Link(NamedTuple):
    """A vertex of the chain behind the boundary.

    Attributes:
        name: Its own; a module's first use has the module's.
        kind: Its module's class, or its operation.
        shape: What it computes; N is the batch.
        form: How what it reads stands.
    """

    name: str
    kind: str
    shape: str
    form: Form

    def is_known(self) -> bool:
        """Tell whether several members can compute it as one."""
        if self.kind == "Linear":
            return self.shape.count(",") == 1  # (N, D)
        if self.form is Form.SHARED:
            return True  # it reads what it reads alone
        if self.form is Form.IN_BATCH and self.kind in POOLS | FLATTENS | {"Conv2d"}:
            return True
        return self.kind == "Dropout" or self.kind in ARITHMETIC | BY_VECTORS

    def is_replaced(self) -> bool:
        """Tell whether its module becomes one for several members."""
        own = self.kind == "Dropout" or self.kind in BY_VECTORS | POOLS
        return self.kind in WEIGHTED or (own and self.form is not Form.SHARED)

    def path(self, modules: Mapping[str, nn.Module]) -> str:
        """Return where its module is: that of an added `mlp.linear` is `mlp`; '' where it has none."""
        owner = self.name.rpartition(".")[0]
        found = (path for path in (self.name, owner) if path in modules)
        return next((path for path in found if type(modules[path]).__name__ == self.kind), "")


def misfit(model: CompiledModel) -> str:
    """Say why what trains is no chain of layers that several members can train as one; else ''."""
    if len(model.boundary) != 1 or len(model.summary.outputs) != 1:
        return "what trains reads or returns more than one tensor, or nothing is frozen"
    links = _chain(model)
    if isinstance(links, str):
        return links
    half = model.suffix_module()
    modules = dict(half.named_modules())
    for link in links:
        if not link.is_known():
            return (
                f"what trains has a layer {link.kind} of {link.shape}, and is no chain of linear "
                "layers, convolutions and pooling"
            )
        if link.is_replaced() and not link.path(modules):
            return f"what trains uses a layer {link.kind} twice"
    return _misfit_of_tensors(half)


def _chain(model: CompiledModel) -> list[_Link] | str:
    """Return the vertices behind the boundary, in order; or why they are no chain."""
    rows = {row.name: row for row in model.summary.vertices}
    (name,), end = model.summary.outputs, model.boundary[0].vertex
    found: list[tuple[str, str, str]] = []
    while name != end:
        row = rows[name]
        if len(row.reads) != 1 or row.reads[0] not in rows:
            return f"{name} reads {len(row.reads)} layers, and what trains is no chain"
        found.insert(0, (name, row.kind, row.shape))
        name = row.reads[0]
    form, links = Form.SHARED, []
    for vertex in found:
        links.append(_Link(*vertex, form))
        if vertex[1] in WEIGHTED:
            form = Form.APART if vertex[1] == "Linear" else Form.IN_BATCH
    return links


def _misfit_of_tensors(half: Half) -> str:
    layers = [module for module in half.modules() if type(module) in (nn.Linear, nn.Conv2d)]
    own = {id(p) for layer in layers for p in layer.parameters()}
    if any(id(p) not in own or not p.requires_grad for p in half.parameters()):
        return (
            "what trains has weights beside those of linear layers and convolutions, or some of "
            "those are frozen"
        )
    if not layers or any(True for _ in half.buffers()):
        return "what trains keeps statistics, or has no layer with weights"
    if any(isinstance(one, nn.Conv2d) and one.padding_mode != "zeros" for one in layers):
        return "what trains pads with something else than zeros"
    return ""


def bytes_a_sample(model: CompiledModel) -> int:
    """Return the bytes of all that one member computes for a sample."""
    links = _chain(model)
    assert not isinstance(links, str)
    names = {link.name for link in links}
    return sum(row.num_bytes for row in model.summary.vertices if row.name in names)


def batched_suffix(model: CompiledModel, members: int, ways: Ways) -> Half:
    """Return what trains as a module of its own, with the weights of several members.

    It is in train mode.

    Shape:
        in: one (N, D...), the same for all members   out: (K, N, C) or (K * N, C)

    Args:
        model: One for which `misfit` says nothing; it stays as it is.
        members: How many; each begins with the model's own weights.
        ways: Chooses how to compute.
    """
    half = copy.deepcopy(model.suffix_module())
    links = _chain(model)
    assert not isinstance(links, str)
    modules = dict(half.named_modules())
    for link in links:
        if link.is_replaced():
            path = link.path(modules)
            owner, _, leaf = path.rpartition(".")
            old = half.get_submodule(path)
            _put(half.get_submodule(owner), leaf, _replaced(old, link, members, ways), old)
    half.train()  # all of it: new modules and old ones are in one mode
    return half


def _replaced(module: nn.Module, link: _Link, members: int, ways: Ways) -> nn.Module:
    """Return what computes a layer for all members."""
    in_batch = members if link.form is Form.IN_BATCH else None
    if isinstance(module, nn.Linear):
        return MemberLinear(module, members, ways, in_batch=in_batch)
    if isinstance(module, nn.Conv2d):
        return MemberConv(module, members, ways, is_shared=link.form is Form.SHARED)
    if isinstance(module, nn.Dropout):
        return MemberDropout(module.p, in_batch)
    return OneByOne(module, in_batch) if ways.exact else module


def _put(owner: nn.Module, leaf: str, new: nn.Module, old: nn.Module) -> None:
    """Put a module in another's place; what the base put under it stays under it."""
    for name, child in old.named_children():
        new.add_module(name, child)
    owner._modules[leaf] = new


def weights_of(half: Half) -> Mapping[str, nn.Parameter]:
    """Return the weights of all members by the model's names; the first dimension is the members."""
    return dict(half.named_parameters())


def draws(half: Half) -> bool:
    """Tell whether random numbers are drawn in train mode."""
    return any(_share(module) for module in half.modules())


def _share(module: nn.Module) -> float:
    is_dropout = isinstance(module, MemberDropout | nn.modules.dropout._DropoutNd)
    return float(module.p) if is_dropout else 0.0  # type: ignore[arg-type]


class MemberDropout(nn.Module):
    """Dropout of what each member has of its own: members of one seed draw the same mask.

    Args:
        p: Share of the numbers that become 0.
        in_batch: How many members stand one after the other; None: in their own dimension.
    """

    def __init__(self, p: float, in_batch: int | None) -> None:
        super().__init__()
        self.p, self.in_batch = p, in_batch

    def forward(self, rows: Tensor) -> Tensor:
        """Set the same places to 0 in every member.

        Shape:
            in: (K, N, D) or (K * N, ...)   out: as in
        """
        if not self.training or not self.p:
            return rows
        if self.in_batch is None:
            one = torch.ones(rows.shape[1:], dtype=rows.dtype, device=rows.device)  # contiguous
            return rows * F.dropout(one, self.p)
        each = rows.chunk(self.in_batch)
        mask = F.dropout(torch.ones_like(each[0]), self.p)
        return torch.cat([own * mask for own in each])


class OneByOne(nn.Module):
    """A layer without weights, of each member by itself.

    Args:
        layer: One of `BY_VECTORS` or `POOLS`.
        in_batch: How many members stand one after the other; None: in their own dimension.
    """

    def __init__(self, layer: nn.Module, in_batch: int | None) -> None:
        super().__init__()
        self.layer, self.in_batch = layer, in_batch

    def forward(self, rows: Tensor) -> Tensor:
        """Compute every member's numbers.

        Shape:
            in: (K, N, D) or (K * N, ...)   out: (K, N, D) or (K * N, ...)
        """
        if self.in_batch is None:
            return torch.stack([self.layer(own.contiguous()) for own in rows])
        return torch.cat([self.layer(own) for own in rows.chunk(self.in_batch)])


def outputs_of(half: Half, rows: Sequence[Tensor], members: int) -> Tensor:
    """Return what all members compute.

    Shape:
        out: (K, N, C)
    """
    found: Tensor = half(*rows)
    return found if found.dim() == 3 else found.view(members, -1, found.shape[1])
