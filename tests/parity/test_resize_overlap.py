"""`overlap: true` against slices written by hand, to the bit; without it, against torch's own layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph.tiny import Branches, Chain, Residual, recipe_of, shake
from torch import Tensor, nn

from parity.plain import evaluated, images, plain_model
from tlcompile.compiler import compile_recipe
from tlcompile.graph.initialise import derived_seed
from tlcompile.model.compiled import CompiledModel

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def compiled(base: nn.Module, resize: str, size: int = 16) -> CompiledModel:
    top = f"base: {{model: own, size: {size}}}\nfreeze: none\nhead: keep\nfine_tune: {{seed: 7}}\n"
    return compile_recipe(recipe_of(f"{top}resize: {resize}"), base=base)


def same(model: nn.Module, wanted: dict[str, Tensor]) -> None:
    found = model.state_dict()
    assert not [name for name, tensor in wanted.items() if not torch.equal(found[name], tensor)]


# Narrower: every tensor of the result is a slice of the base


def test_chain_and_flatten() -> None:
    base = shake(Chain())
    old = base.state_dict()
    model = compiled(base, "{conv: {out: 5, overlap: true}}")
    wanted = {
        name: tensor[:5]
        for name, tensor in old.items()
        if name.startswith(("conv", "bn")) and tensor.dim()
    }
    # The pooled map is 2 x 2: a channel is a block of four columns.
    wanted |= {
        "fc.weight": old["fc.weight"].unflatten(1, (8, 4))[:, :5].flatten(1),
        "fc.bias": old["fc.bias"],
    }
    same(model, wanted)
    by_hand = shake(Chain())
    by_hand.conv, by_hand.bn, by_hand.fc = (
        nn.Conv2d(3, 5, 3, 2, 1),
        nn.BatchNorm2d(5),
        nn.Linear(20, 10),
    )
    by_hand.load_state_dict(wanted, strict=False)
    assert torch.equal(evaluated(model, X)[0], evaluated(by_hand, X)[0])


def test_only_the_slice_of_a_concatenation_changes() -> None:
    base = shake(Branches())
    old = base.state_dict()
    model = compiled(base, "{left: {out: 3, overlap: true}}")
    reader = old["classifier.1.weight"]
    same(
        model,
        {
            "left.weight": old["left.weight"][:3],
            "left.bias": old["left.bias"][:3],
            "classifier.1.weight": torch.cat([reader[:, :3], reader[:, 4:]], 1),
        },
    )
    kept = {row.name for row in model.tensors() if row.origin == "loaded"}
    assert {"stem.weight", "right.weight", "right.bias"} <= kept


def test_the_members_of_a_sum() -> None:
    base = shake(Residual())
    old = base.state_dict()
    members = ("stem", "layer1.0.conv2", "layer1.1.conv2")
    model = compiled(base, f"{{{', '.join(f'{m}: {{out: 5, overlap: true}}' for m in members)}}}")
    wanted = {f"{m}.weight": old[f"{m}.weight"][:5] for m in members}
    wanted |= {
        f"{m}.weight": old[f"{m}.weight"][:, :5]
        for m in ("layer1.0.conv1", "layer1.1.conv1", "down")
    }
    wanted |= {
        f"layer1.0.bn2.{t}": old[f"layer1.0.bn2.{t}"][:5]
        for t in ("weight", "bias", "running_mean", "running_var")
    }
    same(model, wanted)


class Everything(nn.Module):
    """Groups, depthwise with two filters a channel, GroupNorm, PReLU, a scale, channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.norm = nn.GroupNorm(2, 16)
        self.prelu = nn.PReLU(16)
        self.scale = nn.Parameter(torch.ones(16, 1, 1))
        self.up = nn.ConvTranspose2d(16, 6, 2)
        self.layer_norm = nn.LayerNorm(6)
        self.fc = nn.Linear(5 * 5 * 6, 4)

    def forward(self, x: Tensor) -> Any:
        x = self.scale * self.prelu(self.norm(self.depthwise(self.grouped(self.stem(x)))))
        x = self.layer_norm(self.up(x).permute(0, 2, 3, 1))
        return self.fc(x.flatten(1))


def everything() -> Everything:
    model = Everything()
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
            )
    return model


def test_a_group_keeps_the_inputs_that_are_still_its_own() -> None:
    base = everything()
    old = base.state_dict()
    model = compiled(base, "{stem: {out: 4, overlap: true}}")
    new = model.state_dict()["grouped.weight"]
    # Group 0 read channels 0-3 and reads 0-1; group 1 read 4-7 and reads 2-3, which it never saw.
    assert torch.equal(new[:4], old["grouped.weight"][:4, :2])
    assert not torch.isin(new[4:], old["grouped.weight"]).any()


def test_depthwise_norms_scales_and_transposed_convolutions() -> None:
    base = everything()
    old = base.state_dict()
    model = compiled(base, "{grouped: {out: 6, overlap: true}}")
    twelve = (
        "depthwise.weight",
        "depthwise.bias",
        "norm.weight",
        "norm.bias",
        "prelu.weight",
        "scale",
        "up.weight",
    )
    same(model, {name: old[name][:12] for name in twelve})
    origins = {row.name: (row.origin, row.init) for row in model.tensors()}
    assert origins["scale"] == ("resized", "mean of the base's, overlap kept")
    assert origins["up.bias"][0] == "resized"
    model(X).sum().backward()


def test_channels_last_columns() -> None:
    base = everything()
    old = base.state_dict()
    model = compiled(base, "{up: {out: 4, overlap: true}}")
    same(
        model,
        {
            "up.weight": old["up.weight"][:, :4],
            "layer_norm.bias": old["layer_norm.bias"][:4],
            "fc.weight": old["fc.weight"].unflatten(1, (25, 6))[:, :, :4].flatten(1),
        },
    )


# Wider: the base's part is kept, and equals a layer of torch's own elsewhere


def test_wider_keeps_the_base_and_draws_the_rest() -> None:
    base = shake(Chain())
    old = base.state_dict()
    model = compiled(base, "{conv: {out: 11, overlap: true}}")
    new = model.state_dict()
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(7, "init", "conv"))
        drawn = nn.Conv2d(3, 11, 3, stride=2, padding=1)
    assert torch.equal(new["conv.weight"], torch.cat([old["conv.weight"], drawn.weight[8:]]))
    assert torch.equal(new["bn.running_var"], torch.cat([old["bn.running_var"], torch.ones(3)]))
    assert torch.equal(new["fc.weight"].unflatten(1, (11, 4))[:, :8].flatten(1), old["fc.weight"])
    # With columns of zeros for the new channels it computes what the base computes, up to the order of sums.
    with torch.no_grad():
        model.get_parameter("fc.weight").unflatten(1, (11, 4))[:, 8:] = 0
    assert torch.allclose(evaluated(model, X)[0], evaluated(base, X)[0], atol=1e-6)


def test_a_wider_scale_is_filled_with_its_mean() -> None:
    base = everything()
    model = compiled(base, "{grouped: {out: 10}}")
    scale = model.state_dict()["scale"]
    assert torch.equal(scale, base.scale.mean(0, keepdim=True).repeat_interleave(20, 0))


# Without overlap: torch's own layers, under the name's seed


def test_without_overlap_layers_are_torch_s_own_and_the_rest_is_kept() -> None:
    """VGG with fc2 narrowed, as in recipes/flowers_bottleneck.yaml: equal to a module built by hand."""
    base = plain_model("vgg11")
    model = compiled(base, "{classifier.3: {out: 100, init: xavier_normal}}", 64)
    by_hand = plain_model("vgg11")
    by_hand.load_state_dict(base.state_dict())
    classifier: Any = by_hand.classifier
    with torch.random.fork_rng():
        for name, widths in (("3", (4096, 100)), ("6", (100, 1000))):
            torch.manual_seed(derived_seed(7, "init", f"classifier.{name}"))
            layer = nn.Linear(*widths)
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
            classifier[int(name)] = layer
    same(model, by_hand.state_dict())
    x = images("vgg11", 2)
    assert torch.equal(evaluated(model, x)[0], evaluated(by_hand, x)[0])


def test_without_overlap_norms_start_anew() -> None:
    model = compiled(shake(Chain()), "{conv: {out: 5}}")
    fresh = nn.BatchNorm2d(5).state_dict()
    same(model, {f"bn.{name}": tensor for name, tensor in fresh.items()})


def test_overlap_is_refused_where_the_order_of_channels_is_lost() -> None:
    class Shuffled(Chain):
        def forward(self, x: Tensor) -> Any:
            x = nn.functional.channel_shuffle(self.conv(x), 2)
            return self.fc(torch.flatten(self.pool(x), 1))

    with pytest.raises(Exception, match=r"overlap-unknown") as caught:
        compiled(Shuffled(), "{conv: {out: 4, overlap: true}}")
    assert "tiny.yaml:5:" in str(caught.value)
    assert compiled(Shuffled(), "{conv: {out: 4}}")(X).shape == (4, 10)


def test_overlap_is_refused_where_a_sum_mixes_kept_and_new_channels() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(3, n, 1) for n in (4, 4, 8))
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Any:
            return self.head(torch.cat([self.a(x), self.b(x)], 1) + self.c(x))

    # c's channels 6 and 7 are gone; of the concatenation 2 and 3 are.
    both = "{a: {out: 2, overlap: true}, c: {out: 6, overlap: true}}"
    with pytest.raises(Exception, match=r"'add' \(add\)"):
        compiled(Mixed(), both)
    assert compiled(Mixed(), both.replace(", overlap: true", ""))(X).shape == (4, 2, 16, 16)
