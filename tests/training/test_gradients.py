"""Clipping and renormalising: what each does to gradients, against torch or by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tlcompile.training.gradients import ClipNorm, ClipValue, Hook, Renormalise


def parameters(scale: float = 1.0) -> dict[str, nn.Parameter]:
    """Two layers, one parameter without a gradient; the first layer's gradients are longer."""
    random = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (3, 4), "a.bias": (3,), "b.weight": (2, 3), "b.bias": (2,)}
    held = {name: nn.Parameter(torch.ones(shape)) for name, shape in shapes.items()}
    for name, parameter in held.items():
        factor = scale * (10.0 if name.startswith("a.") else 0.01)
        parameter.grad = factor * torch.randn(parameter.shape, generator=random)
    return {**held, "idle.weight": nn.Parameter(torch.ones(2))}


def norm(held: dict[str, nn.Parameter], *names: str) -> float:
    grads = [held[name].grad.flatten() for name in names]  # type: ignore[union-attr]
    return float(torch.cat(grads).norm())


A, B = ("a.weight", "a.bias"), ("b.weight", "b.bias")


def test_one_norm_for_the_model_is_torch_s_own_to_the_bit() -> None:
    ours, theirs = parameters(), parameters()
    ClipNorm(1.5)(ours)
    nn.utils.clip_grad_norm_(list(theirs.values()), 1.5)
    for name in (*A, *B):
        assert torch.equal(ours[name].grad, theirs[name].grad), name  # type: ignore[arg-type]
    assert norm(ours, *A, *B) == pytest.approx(1.5, rel=1e-5)


def test_a_layer_longer_than_the_limit_is_scaled_and_a_shorter_one_stays() -> None:
    held, before = parameters(), parameters()
    ClipNorm(1.5, "layer")(held)
    assert norm(held, *A) == pytest.approx(1.5, rel=1e-5)
    for name in B:
        assert torch.equal(held[name].grad, before[name].grad), name  # type: ignore[arg-type]
    ratio = held["a.weight"].grad / before["a.weight"].grad  # type: ignore[operator]
    assert torch.allclose(held["a.bias"].grad / before["a.bias"].grad, ratio[0, 0].expand(3))  # type: ignore[operator]


def test_each_parameter_is_scaled_by_its_own_norm() -> None:
    held = parameters()
    ClipNorm(1.5, "parameter")(held)
    assert [norm(held, name) for name in A] == pytest.approx([1.5, 1.5], rel=1e-5)


def test_values_are_clipped_one_by_one() -> None:
    held, before = parameters(), parameters()
    ClipValue(0.5)(held)
    for name in (*A, *B):
        wanted = before[name].grad.clamp(-0.5, 0.5)  # type: ignore[union-attr]
        assert torch.equal(held[name].grad, wanted), name  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_renormalised_gradients_have_norm_one_whatever_they_were(scale: float) -> None:
    held = parameters(scale)
    Renormalise("layer")(held)
    assert [norm(held, *A), norm(held, *B)] == pytest.approx([1.0, 1.0])
    held = parameters(scale)
    Renormalise("parameter")(held)
    assert [norm(held, name) for name in (*A, *B)] == pytest.approx([1.0] * 4)
    held = parameters(scale)
    Renormalise("model")(held)
    assert norm(held, *A, *B) == pytest.approx(1.0)


def test_a_gradient_of_zeros_stays_zero() -> None:
    held = parameters(0.0)
    Renormalise("layer")(held)
    assert all(not p.grad.any() for n, p in held.items() if n != "idle.weight")  # type: ignore[union-attr]


@pytest.mark.parametrize("hook", [ClipNorm(1.0, "layer"), ClipValue(0.1), Renormalise("parameter")])
def test_a_parameter_without_a_gradient_gets_none(hook: Hook) -> None:
    held = parameters()
    hook(held)
    assert held["idle.weight"].grad is None
