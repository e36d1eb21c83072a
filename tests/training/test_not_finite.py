"""The first value that is not finite, found after the fact: each kind, with its samples and its layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.training.not_finite import NotFinite, find_not_finite, gradient_norm

NAN, INF = float("nan"), float("inf")
COUNT = 6


class CrossEntropy:
    """An objective; `factors` spoil the losses of single samples."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)


class Scaled(nn.Module):
    """Divides by a number that a test may set to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.divisor = torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        return x / self.divisor


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), Scaled(), nn.BatchNorm1d(4), nn.Linear(4, 2))


def stepped(model: nn.Module, rows: Tensor, targets: Tensor) -> None:
    CrossEntropy().loss(model(rows), targets).backward()  # type: ignore[no-untyped-call]


def found(spoil: Callable[[Any, Tensor], None], *, after: bool = False) -> NotFinite:
    """Spoil a step before it is taken, or its gradients after."""
    model, rows = network(), torch.randn(COUNT, 3, generator=torch.Generator().manual_seed(1))
    targets = torch.arange(COUNT) % 2
    if not after:
        spoil(model, rows)
    stepped(model, rows, targets)
    if after:
        spoil(model, rows)
    return find_not_finite(model, model, [rows], targets, CrossEntropy())


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_feature_is_named_with_its_samples(bad: float) -> None:
    def spoil(_model: Any, rows: Tensor) -> None:
        rows[2, 1] = rows[4, 0] = bad

    assert found(spoil) == NotFinite("feature", None, (2, 4))


def test_a_label_is_named_with_its_sample() -> None:
    model, rows = nn.Linear(3, 1), torch.randn(COUNT, 3)
    targets = torch.zeros(COUNT, 1)
    targets[3] = NAN

    class Squares:
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return F.mse_loss(outputs, targets)

    assert find_not_finite(model, model, [rows], targets, Squares()) == NotFinite(
        "label", None, (3,)
    )


def test_a_label_among_several_outputs_is_found() -> None:
    model, rows = nn.Linear(3, 1), torch.randn(COUNT, 3)
    targets = {"one": torch.arange(COUNT), "two": torch.ones(COUNT, 1)}
    targets["two"][1] = INF
    result = find_not_finite(model, model, [rows], targets, CrossEntropy())
    assert result == NotFinite("label", None, (1,))


def test_a_weight_is_named_before_the_layers_that_read_it() -> None:
    def spoil(model: Any, _rows: Tensor) -> None:
        with torch.no_grad():
            model[3].weight[0, 1] = NAN

    assert found(spoil) == NotFinite("weight", "3.weight", tuple(range(COUNT)))


def test_spoilt_statistics_name_the_layer_that_has_them() -> None:
    def spoil(model: Any, _rows: Tensor) -> None:
        model.eval()
        model[2].running_mean[0] = INF

    result = found(spoil)
    assert (result.what, result.layer) == ("loss", "2")


def test_the_first_layer_is_named_not_those_behind_it() -> None:
    def spoil(model: Any, rows: Tensor) -> None:
        model[1].divisor[2] = 0.0
        rows[0] = 0.0
        with torch.no_grad():
            model[0].bias.zero_()

    result = found(spoil)
    assert (result.what, result.layer) == ("loss", "1")
    assert result.positions == tuple(range(COUNT))  # 0 / 0 and x / 0 in every sample


def test_a_loss_that_is_infinite_names_its_samples() -> None:
    class Logarithm:
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return -torch.log(targets * outputs.abs().sum(1)).mean()

    model, rows = nn.Linear(3, 2), torch.randn(COUNT, 3)
    targets = torch.ones(COUNT)
    targets[5] = 0.0  # the logarithm of zero
    result = find_not_finite(model, model, [rows], targets, Logarithm())
    assert result == NotFinite("loss", None, (5,))


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_gradient_names_the_tensor_nearest_to_the_output(bad: float) -> None:
    def spoil(model: Any, _rows: Tensor) -> None:
        for parameter in (model[0].weight, model[2].bias):
            parameter.grad.view(-1)[0] = bad

    assert found(spoil, after=True) == NotFinite("gradient", "2.bias", tuple(range(COUNT)))


def test_a_norm_that_overflows_names_the_largest_gradient() -> None:
    def spoil(model: Any, _rows: Tensor) -> None:
        model[0].bias.grad.fill_(3e38)
        assert not torch.isfinite(gradient_norm([*model.parameters()]))

    assert found(spoil, after=True).layer == "0.bias"


def test_looking_leaves_no_hooks_and_no_gradients() -> None:
    model = network()
    rows, targets = torch.randn(COUNT, 3), torch.arange(COUNT) % 2
    stepped(model, rows, targets)
    before = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    find_not_finite(model, model, [rows], targets, CrossEntropy())
    after = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_the_norm_is_that_of_all_gradients_together() -> None:
    model = network()
    stepped(model, torch.randn(COUNT, 3), torch.arange(COUNT) % 2)
    every = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert gradient_norm([*model.parameters()]).item() == pytest.approx(every.norm().item())


def test_a_layer_that_cuts_images_into_windows_names_every_sample() -> None:
    """Positions of windows are no positions of samples."""

    class Windows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            windows = x.reshape(-1, 1)
            return torch.where(windows == windows[7], NAN, windows)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.windows, self.fc = Windows(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.windows(x).reshape(-1, 3))

    model, rows = Whole(), torch.randn(COUNT, 3)
    result = find_not_finite(model, model, [rows], torch.arange(COUNT) % 2, CrossEntropy())
    assert result == NotFinite("loss", "windows", tuple(range(COUNT)))
