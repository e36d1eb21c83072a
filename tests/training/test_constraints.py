"""Constraints: norms of units along their fan-in, against torch.renorm or by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tlcompile.training.constraints import Constraint, NonNegative, NormBetween, Rule, units_of


def constrained(layer: nn.Module, *rules: Rule, name: str = "weight") -> torch.Tensor:
    parameter = layer.get_parameter(name)
    Constraint(rules, {name: units_of(layer, parameter)})({name: parameter})
    return parameter.detach()


def test_max_norm_is_torch_s_renorm_of_every_output() -> None:
    layer = nn.Conv2d(3, 6, 3)
    before = layer.weight.detach().clone()
    limit = float(before.flatten(1).norm(dim=1).median())
    found = constrained(layer, NormBetween(0.0, limit))
    # torch adds 1e-7 to the norm.
    assert torch.allclose(found, torch.renorm(before, 2, 0, limit), rtol=1e-5)


def test_units_within_the_bound_stay_to_the_bit() -> None:
    layer = nn.Linear(5, 4)
    before = layer.weight.detach().clone()
    limit = float(before.norm(dim=1).median())
    found = constrained(layer, NormBetween(0.0, limit))
    small = before.norm(dim=1) <= limit
    assert torch.equal(found[small], before[small])
    assert not torch.equal(found, before)


@pytest.mark.parametrize(
    "layer", [nn.Linear(5, 4), nn.Conv2d(4, 6, 3, groups=2), nn.Embedding(7, 3)]
)
def test_unit_norm_is_that_of_what_feeds_one_output(layer: nn.Module) -> None:
    found = constrained(layer, NormBetween(1.0, 1.0))
    assert found.flatten(1).norm(dim=1) == pytest.approx(1.0)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_has_its_outputs_second(groups: int) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    with torch.no_grad():
        layer.weight.mul_(torch.rand(layer.weight.shape) * 5)
    constrained(layer, NormBetween(1.0, 1.0))
    for channel in range(6):
        group, place = divmod(channel, 6 // groups)
        inputs = slice(group * 4 // groups, (group + 1) * 4 // groups)
        assert float(layer.weight.detach()[inputs, place].norm()) == pytest.approx(1.0)


def test_both_bounds_and_a_rate_go_part_of_the_way() -> None:
    layer = nn.Linear(2, 3, bias=False)
    rows = torch.tensor([[0.5, 0.0], [0.0, 1.5], [3.0, 4.0]])
    with torch.no_grad():
        layer.weight.copy_(rows)
    found = constrained(layer, NormBetween(1.0, 2.0, 0.5))
    assert found.norm(dim=1) == pytest.approx([0.75, 1.5, 3.5])
    assert torch.equal(found[1], rows[1])
    assert torch.allclose(found[2] / found[2].norm(), rows[2] / 5)


def test_a_unit_of_zeros_has_no_direction_and_stays() -> None:
    layer = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(layer.weight)
    assert not constrained(layer, NormBetween(1.0, 1.0)).any()


def test_negative_numbers_become_zero_before_a_norm_is_made() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-3.0, 4.0]]))
    assert torch.equal(
        constrained(layer, NonNegative(), NormBetween(1.0, 1.0)), torch.tensor([[0.0, 1.0]])
    )


def test_a_bias_has_one_norm() -> None:
    layer = nn.Linear(2, 3)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([3.0, 0.0, 4.0]))
    found = constrained(layer, NormBetween(0.0, 1.0), name="bias")
    assert torch.allclose(found, torch.tensor([0.6, 0.0, 0.8]))


def test_what_is_not_given_is_not_touched() -> None:
    layer = nn.Linear(2, 3)
    units = {"weight": units_of(layer, layer.weight), "gone": units_of(layer, layer.bias)}
    before = layer.bias.detach().clone()
    Constraint((NormBetween(1.0, 1.0),), units)({"weight": layer.weight, "bias": layer.bias})
    assert torch.equal(layer.bias, before)
