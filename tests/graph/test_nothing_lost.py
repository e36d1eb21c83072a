"""What a forward does beside its graph: done by the compiled model too, or refused; never lost."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from tiny import make_recipe
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError


class Net(nn.Module):
    """A convolution, a norm, a classifier; subclasses say what happens between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.block = self.between()
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(self.bn(self.conv(x))).mean((2, 3)))

    def between(self) -> nn.Module:
        return nn.Identity()

    def body(self, x: Tensor) -> Tensor:
        return self.block(x)


class NoGradBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.conv(x)


class Moving(nn.Module):
    """Keeps a mean of its own, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.copy_(x.detach().mean((0, 2, 3)))
        return x


class Exchanging(Moving):
    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean((0, 2, 3))
        return x - self.mean[:, None, None]


class Gate(nn.Module):
    """Draws a number that no input has a say in."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rand(1) * random.random()


class Doubling(nn.Module):
    """Cannot be traced, and writes into what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2) if bool(x.sum() < 1e9) else x


def net_with(block: type[nn.Module]) -> nn.Module:
    return type("With", (Net,), {"between": lambda _self: block()})()


class NoGrad(Net):
    def body(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.fc(x.mean((2, 3)))[:, :, None, None]


class Autocast(Net):
    def body(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return x @ x


class RandomRoot(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.rand(1)


class ModeInConstant(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.tensor(2.0 if self.training else 1.0)


class OwnTrain(Net):
    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self.bn.eval()
        return self


class Normal(Net):
    def body(self, x: Tensor) -> Tensor:
        noise = torch.empty_like(x)
        noise.normal_()
        return x + noise


class Copied(Net):
    def body(self, x: Tensor) -> Tensor:
        made = torch.zeros_like(x)
        made.copy_(x)
        return made


class Bernoulli(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.full_like(x, 2.0).bernoulli_()


class Leaky(Net):
    def body(self, x: Tensor) -> Tensor:
        F.leaky_relu_(x, 0.1)
        x = x + 1
        torch.tanh_(x)
        return x


class Power(Net):
    def body(self, x: Tensor) -> Tensor:
        other = x
        other **= 2
        return x + other


class Detached(Net):
    def body(self, x: Tensor) -> Tensor:
        x.detach().mul_(2)
        return x


class Data(Net):
    def body(self, x: Tensor) -> Tensor:
        x.data.clamp_(0, 1)
        return x


class Diagonal(Net):
    def body(self, x: Tensor) -> Tensor:
        x.diagonal(dim1=2, dim2=3).zero_()
        return x


class DropAlias(Net):
    def between(self) -> nn.Module:
        return nn.Dropout(0.3)

    def body(self, x: Tensor) -> Tensor:
        made = self.block(x)
        made += 1
        return x * made


class Out(Net):
    def body(self, x: Tensor) -> Tensor:
        made = torch.empty_like(x)
        torch.mul(x.detach(), 2, out=made)
        return x + made


class Unread(Net):
    """Calls modules that nothing reads: one counts, one draws."""

    def between(self) -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(6), nn.Dropout(0.5))

    def body(self, x: Tensor) -> Tensor:
        self.block(x)
        return x


def keep(module: nn.Module, freeze: str = "none") -> nn.Module:
    recipe = make_recipe(base={"model": "own", "size": 8}, head="keep", freeze=freeze)
    return compile_recipe(recipe, base=module)


@pytest.mark.parametrize(
    "kind",
    [NoGrad, Autocast, RandomRoot, ModeInConstant, OwnTrain, Detached, Data, Diagonal, DropAlias, Out],
)  # fmt: skip
def test_what_the_root_s_graph_would_lose_is_refused(kind: type[Net]) -> None:
    torch.manual_seed(0)
    random.seed(0)
    states = torch.get_rng_state(), random.getstate()
    with pytest.raises(TLCompileError) as caught:
        keep(kind())
    assert caught.value.slug == "not-traceable"
    torch.manual_seed(0)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


def ran(module: nn.Module, x: Tensor, *, train: bool) -> list[Tensor | None]:
    module = copy.deepcopy(module).train(train)
    torch.manual_seed(1)
    random.seed(1)
    out = module(x.clone())
    out.square().sum().backward()
    grads = [p.grad for p in module.parameters()]
    return [out, torch.get_rng_state(), *module.buffers(), *grads]


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "module",
    [
        *(kind() for kind in (Normal, Copied, Bernoulli, Leaky, Power, Unread)),
        *map(net_with, (NoGradBlock, Moving, Exchanging, Gate, Doubling)),
    ],
    ids=lambda m: f"{type(m).__name__}-{type(m.block).__name__}",
)
def test_what_a_module_does_beside_its_graph_is_done(module: nn.Module, train: bool) -> None:
    x = torch.randn(4, 3, 8, 8)
    wanted, found = ran(module, x, train=train), ran(keep(module), x, train=train)
    for one, other in zip(wanted, found, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)  # type: ignore[arg-type]


def test_backward_hooks_run_with_their_region() -> None:
    module = net_with(NoGradBlock)
    module.block = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU())
    module.block.register_full_backward_hook(lambda _m, given, _o: (-given[0],))
    x = torch.randn(4, 3, 8, 8)
    for one, other in zip(
        ran(module, x, train=True), ran(keep(module), x, train=True), strict=True
    ):
        assert torch.equal(one, other)  # type: ignore[arg-type]
    module.register_full_backward_hook(lambda _m, _g, _o: None)
    with pytest.raises(TLCompileError, match="backward hooks"):
        keep(module)


def test_a_feature_is_not_overwritten_by_what_reads_it() -> None:
    model = keep(net_with(Doubling), freeze="bn").eval()
    features = model.prefix(torch.randn(2, 3, 8, 8))
    before = features[0].clone()
    assert torch.equal(model.suffix(*features), model.suffix(*features))
    assert torch.equal(before, features[0])


def test_a_batch_norm_without_statistics_is_not_frozen() -> None:
    module = Net()
    module.bn = nn.BatchNorm2d(6, track_running_stats=False)
    keep(module)
    with pytest.raises(TLCompileError) as caught:
        keep(module, freeze="bn")
    assert caught.value.slug == "batch-statistics"


def test_modules_that_keep_what_they_computed_are_copied() -> None:
    module = Net()
    module.seen = [module(torch.randn(2, 3, 8, 8))]
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(keep(module).eval()(x), module.eval()(x))
    assert module.seen[0].grad_fn is not None  # the user's own stays as it was


def test_an_old_weight_norm_is_copied() -> None:
    module = Net()
    with pytest.warns(FutureWarning):
        module.fc = nn.utils.weight_norm(module.fc)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(keep(module).eval()(x), module.eval()(x))


def test_lazy_layers_are_refused_and_whole_numbers_want_no_gradient() -> None:
    module = Net()
    module.conv = nn.LazyConv2d(6, 3)
    with pytest.raises(TLCompileError, match="lazy"):
        keep(module)
    module = Net()
    module.order = nn.Parameter(torch.arange(6), requires_grad=False)
    assert "order" not in dict(keep(module).trainable())  # type: ignore[operator]
