"""A row must not depend on its place in a pass: torch's vector code leaves the end of a tensor over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tiny import make_recipe
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe
from tlcompile.features.pass_size import pass_size
from tlcompile.features.prefix import Prefix
from tlcompile.model.compiled import CompiledModel

CPU = torch.device("cpu")


class Odd(nn.Module):
    """29 channels of one pixel, as a squeeze-excitation has them."""

    def __init__(self, activation: nn.Module, side: int = 1) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.squeeze = nn.Conv2d(3, 29, 1)
        self.activation = activation
        self.fc = nn.Linear(29 * side * side, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.fc(self.activation(self.squeeze(self.pool(x))).flatten(1))


def frozen(module: nn.Module) -> CompiledModel:
    recipe = make_recipe(base={"model": "digits_net", "size": 16}, freeze="activation")
    return compile_recipe(recipe, module, num_classes=2)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [nn.SiLU, nn.Sigmoid, nn.ELU, nn.Mish, nn.Softplus])
def test_a_row_is_the_same_at_any_place(kind: type[nn.Module], threads: int) -> None:
    torch.manual_seed(0)
    model, images = frozen(Odd(kind())), torch.randn(40, 3, 16, 16)
    size = pass_size(model, 7, CPU)
    assert size == 32
    order = torch.randperm(40)
    prefix = Prefix(model, size, CPU)
    assert torch.equal(prefix(images)[0][order], prefix(images[order])[0])


def test_without_it_places_matter() -> None:
    """Or the test above shows nothing."""
    torch.manual_seed(0)
    model, images = frozen(Odd(nn.SiLU())), torch.randn(40, 3, 16, 16)
    order = torch.randperm(40)
    prefix = Prefix(model, 7, CPU)
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("this processor has no vector code")
    assert not torch.equal(prefix(images)[0][order], prefix(images[order])[0])


def test_what_one_thread_takes_must_end_in_whole_steps(threads: int) -> None:
    """29 x 33 x 33 elements an image, enough for a second thread."""
    model = frozen(Odd(nn.SiLU(), side=33))
    assert pass_size(model, 32, CPU) == {1: 32, 2: 64}[threads]


@pytest.mark.parametrize("kind", [nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.Hardswish, nn.Identity])
def test_sums_and_comparisons_need_no_more(kind: type[nn.Module], threads: int) -> None:
    torch.manual_seed(0)
    model, images = frozen(Odd(kind())), torch.randn(40, 3, 16, 16)
    assert pass_size(model, 7, CPU) == 7
    order, prefix = torch.randperm(40), Prefix(model, 7, CPU)
    assert torch.equal(prefix(images)[0][order], prefix(images[order])[0])


def test_a_device_that_computes_each_element_alone_needs_no_more() -> None:
    assert pass_size(frozen(Odd(nn.SiLU())), 7, torch.device("cuda")) == 7
