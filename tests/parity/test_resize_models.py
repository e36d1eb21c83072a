"""Resizes inside torchvision's models: what comes out runs on real tensors, or the members are named.

31 cases of six models, and 20 more of ten others; a few of them in the default suite.
"""

from __future__ import annotations

import pytest
import torch
from graph.tiny import recipe_of
from torch import Tensor, nn

from parity.plain import images, leaves, plain_model, side_of
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.resize import ResizeMembersError
from tlcompile.model.compiled import CompiledModel

FINE = "fine"
Case = tuple[str, str, int, str | int]  # model, vertex, width; a slug, or how many members change

SIX: list[Case] = [
    ("resnet18", "conv1", 16, 3),
    ("resnet18", "layer1.0.conv1", 80, FINE),
    ("resnet18", "layer1.0.conv2", 16, 3),
    ("resnet18", "layer4.0.downsample.0", 256, 3),
    ("resnet18", "layer4.1.conv2", 256, 3),
    ("resnet18", "layer4.1.bn2", 256, "resize-follower"),
    ("resnet18", "fc", 7, FINE),
    ("mobilenet_v3_small", "features.0.0", 8, FINE),
    ("mobilenet_v3_small", "features.1.block.0.0", 8, "resize-follower"),  # depthwise
    ("mobilenet_v3_small", "features.2.block.0.0", 40, FINE),
    ("mobilenet_v3_small", "features.4.block.0.0", 64, FINE),  # pulls the excitation
    ("mobilenet_v3_small", "features.4.block.1.0", 64, "resize-follower"),
    ("mobilenet_v3_small", "features.4.block.2.fc1", 8, FINE),
    ("mobilenet_v3_small", "features.4.block.2.fc2", 90, 2),
    ("mobilenet_v3_small", "features.4.block.3.0", 20, 3),
    ("mobilenet_v3_small", "classifier.0", 64, FINE),
    ("densenet121", "features.conv0", 32, FINE),
    ("densenet121", "features.denseblock1.denselayer1.conv1", 64, FINE),
    ("densenet121", "features.denseblock1.denselayer2.conv2", 16, FINE),
    ("densenet121", "features.transition1.conv", 100, FINE),
    ("vgg11", "features.0", 32, FINE),
    ("vgg11", "features.18", 64, FINE),
    ("vgg11", "classifier.3", 50, FINE),
    ("squeezenet1_0", "features.3.squeeze", 8, FINE),
    ("squeezenet1_0", "features.3.expand1x1", 40, FINE),
    ("squeezenet1_0", "features.12.expand3x3", 40, FINE),
    ("squeezenet1_0", "classifier.1", 9, FINE),
    ("convnext_tiny", "features.0.0", 48, 4),
    ("convnext_tiny", "features.1.0.block.3", 100, FINE),
    ("convnext_tiny", "features.1.0.block.5", 48, 4),
    ("convnext_tiny", "features.2.1", 100, 4),
]
OTHERS: list[Case] = [
    ("regnet_y_400mf", "stem.0", 16, FINE),
    ("regnet_y_400mf", "trunk_output.block1.block1-0.f.a.0", 64, "not-divisible"),
    ("regnet_y_400mf", "trunk_output.block1.block1-0.f.b.0", 56, "not-divisible"),
    ("resnext50_32x4d", "layer1.0.conv1", 100, "not-divisible"),
    ("resnext50_32x4d", "layer1.0.conv1", 96, FINE),
    ("resnext50_32x4d", "layer1.0.conv2", 64, FINE),
    ("vit_b_16", "conv_proj", 512, "written-width"),
    ("vit_b_16", "conv_proj", 1536, "written-width"),  # runs, and moves channels into patches
    ("vit_b_16", "encoder.layers.encoder_layer_0.mlp.0", 100, FINE),
    ("vit_b_16", "encoder.layers.encoder_layer_0.mlp.3", 100, "fixed-width"),
    ("swin_t", "features.0.0", 48, "no-width-rule"),
    ("swin_t", "features.1.0.mlp.0", 100, FINE),
    ("shufflenet_v2_x1_0", "stage2.0.branch2.5", 64, "written-width"),
    ("shufflenet_v2_x1_0", "stage2.1.branch2.0", 40, FINE),
    ("shufflenet_v2_x1_0", "conv5.0", 100, FINE),
    ("googlenet", "inception3a.branch1.conv", 50, FINE),
    ("efficientnet_b0", "features.2.0.block.0.0", 60, FINE),
    ("mnasnet1_0", "layers.0", 16, FINE),
    ("maxvit_t", "stem.0.0", 32, FINE),
    ("fcn_resnet50", "backbone.conv1", 32, FINE),
]
ALWAYS = (
    ("resnet18", "layer4.1.conv2"), ("mobilenet_v3_small", "features.4.block.0.0"),
    ("squeezenet1_0", "features.3.expand1x1"), ("vit_b_16", "conv_proj"),
    ("shufflenet_v2_x1_0", "stage2.1.branch2.0"), ("convnext_tiny", "features.1.0.block.3"),
    ("shufflenet_v2_x1_0", "stage2.0.branch2.5"),
)  # fmt: skip
CASES = [
    pytest.param(*case, marks=[] if case[:2] in ALWAYS else pytest.mark.slow)
    for case in (*SIX, *OTHERS)
]


def test_how_many_cases_there_are() -> None:
    assert (len(SIX), len({case[0] for case in SIX})) == (31, 6)
    assert (len(OTHERS), len({case[0] for case in OTHERS})) == (20, 10)
    assert sum(case[:2] in ALWAYS for case in (*SIX, *OTHERS)) == 8


def compiled(base: nn.Module, model: str, resize: str) -> CompiledModel:
    top = f"base: {{model: own, size: {side_of(model)}}}\nfreeze: none\nhead: keep\n"
    return compile_recipe(recipe_of(top + resize), base=base)


@pytest.mark.parametrize(("model", "vertex", "width", "what"), CASES)
def test_resize(model: str, vertex: str, width: int, what: str | int) -> None:
    base = plain_model(model)
    line = f"resize: {{{vertex}: {{out: {width}, overlap: true}}}}"
    if isinstance(what, int):
        with pytest.raises(ResizeMembersError) as members:
            compiled(base, model, line)
        assert len(members.value.members) == what
        line = members.value.line
    elif what != FINE:
        with pytest.raises(TLCompileError) as caught:
            compiled(base, model, line)
        assert caught.value.slug == what
        assert str(caught.value.where) == f"tiny.yaml:4:{len(f'resize: {{{vertex}: ') + 1}"
        return
    check(compiled(base, model, line), base, images(model, 2))


def check(model: CompiledModel, base: nn.Module, x: Tensor) -> None:
    """Run forward and backward; what is not resized is the base's, to the bit."""
    old, new = base.state_dict(), model.state_dict()
    origin = {row.name: row.origin for row in model.tensors() if row.state != "dropped"}
    kept = [name for name in new if origin[name] == "loaded"]
    assert 0 < len(kept) < len(new)
    assert not [name for name in kept if not torch.equal(old[name], new[name])]
    assert {name for name in new if new[name].shape != old[name].shape} <= new.keys() - set(kept)
    sum(leaf.sum() for leaf in leaves(model.train()(x))).backward()  # type: ignore[union-attr]
    assert not [name for name, p in model.named_parameters() if p.grad is None]
