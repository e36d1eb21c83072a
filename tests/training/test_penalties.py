"""Penalties are the gradient of what they add to the loss; who is a weight, who a bias."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tlcompile.training.penalties import Penalty, kinds_of


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(20, 4))


def data_loss(module: nn.Module) -> Tensor:
    images = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    loss: Tensor = module(images).logsumexp(1).mean()
    return loss


@pytest.mark.parametrize(
    ("l1", "l2"),
    [({}, {"0.weight": 0.3, "3.weight": 0.3, "3.bias": 0.05}), ({"3.weight": 0.2}, {})],
)
def test_it_is_the_gradient_of_the_penalty_in_the_loss(
    l1: dict[str, float], l2: dict[str, float]
) -> None:
    ours, autograd = net(), net()
    data_loss(ours).backward()  # type: ignore[no-untyped-call]
    Penalty(l1, l2)(dict(ours.named_parameters()))
    held = dict(autograd.named_parameters())
    loss = data_loss(autograd)
    for name, factor in l1.items():
        loss = loss + factor * held[name].abs().sum()
    for name, factor in l2.items():
        loss = loss + factor / 2 * held[name].square().sum()
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in ours.named_parameters():
        # One rounding may differ: the factor meets the sum in one instruction here, in two there.
        assert torch.allclose(parameter.grad, held[name].grad, rtol=1e-6, atol=1e-7), name  # type: ignore[arg-type]


def test_at_zero_l1_pulls_nowhere() -> None:
    weight = nn.Parameter(torch.tensor([[-2.0, 0.0, 3.0]]))
    weight.grad = torch.zeros(1, 3)
    Penalty({"w": 0.5}, {})({"w": weight})
    assert torch.equal(weight.grad, torch.tensor([[-0.5, 0.0, 0.5]]))


def test_sgd_with_l2_is_sgd_with_weight_decay() -> None:
    ours, theirs = net(), net()
    every = dict.fromkeys(dict(ours.named_parameters()), 0.1)
    for module, decay in ((ours, 0.0), (theirs, 0.1)):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=decay)
        for _ in range(3):
            optimizer.zero_grad()
            data_loss(module).backward()  # type: ignore[no-untyped-call]
            if not decay:
                Penalty({}, every)(dict(module.named_parameters()))
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    Penalty({"w": 1.0}, {"w": 1.0, "elsewhere": 1.0})({"w": weight})
    assert weight.grad is None


def test_weights_and_biases_are_told_from_norms() -> None:
    layers = nn.ModuleDict(
        {
            "conv": nn.Conv2d(2, 2, 1),
            "norm": nn.LayerNorm(4),
            "batch": nn.BatchNorm2d(2),
            "attention": nn.MultiheadAttention(4, 2),
            "lstm": nn.LSTM(4, 4),
            "prelu": nn.PReLU(3),
            "table": nn.Embedding(3, 2),
        }
    )
    kinds = kinds_of(dict(layers.named_parameters()))
    assert {n for n, kind in kinds.items() if kind == "bias"} == {
        "conv.bias", "attention.in_proj_bias", "attention.out_proj.bias", "lstm.bias_ih_l0",
        "lstm.bias_hh_l0",
    }  # fmt: skip
    assert {n for n, kind in kinds.items() if kind == "other"} == {
        "norm.weight", "norm.bias", "batch.weight", "batch.bias", "prelu.weight",
    }  # fmt: skip
    assert "table.weight" in {n for n, kind in kinds.items() if kind == "weight"}
