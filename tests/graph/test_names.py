"""Vertices are called as torchvision's feature extraction calls them; stages are where they should."""

from __future__ import annotations

import pytest
from parity.plain import plain_model
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models.feature_extraction import get_graph_node_names

from graph.tiny import TINY, graph_with_shapes, shake
from tlcompile.errors.graph import NotTraceableError
from tlcompile.graph.flops import flops_of
from tlcompile.graph.model_graph import graph_of
from tlcompile.graph.names import all_names, name_of
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.stages import find_stages
from tlcompile.zoo.building import without_init
from tlcompile.zoo.bundled import digits_net


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "squeezenet1_0", "densenet121"])
@pytest.mark.filterwarnings("ignore")
def test_names_are_those_of_torchvision(name: str) -> None:
    model = plain_model(name)
    ours = list(graph_with_shapes(model, 64).names())
    theirs, _ = get_graph_node_names(model)
    assert len(ours) > 20
    assert ours == theirs


# spec/graph.md, section e, at 224 pixels; densenet: norm5 and the relu behind it end equally far out
STAGES = {
    "resnet18": ["layer1.1.relu_1", "layer2.1.relu_1", "layer3.1.relu_1", "layer4.1.relu_1"],
    "regnet_y_400mf": [f"trunk_output.block{n}" for n in (1, 2, 3, 4)],
    "densenet121": ["features.denseblock1", "features.denseblock2", "features.denseblock3", "relu"],
    "convnext_tiny": ["features.1", "features.3", "features.5", "features.7"],
    "swin_t": ["features.1", "features.3", "features.5", "permute"],
    "efficientnet_b0": ["features.2", "features.3", "features.5", "features.8"],
    "mobilenet_v3_small": ["features.1", "features.3", "features.8", "features.12"],
    "vgg11": ["features.9", "features.14", "features.19", "avgpool"],
    "squeezenet1_0": ["features.5", "features.10", "features.12"],
    "vit_b_16": [f"encoder.layers.encoder_layer_{n}" for n in (2, 5, 8, 11)],
    "googlenet": ["conv3", "inception3b", "inception4e", "inception5b"],
    "maxvit_t": ["blocks.0", "blocks.1", "blocks.2", "blocks.3"],
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_stages(name: str) -> None:
    kwargs = {"init_weights": False} if name == "googlenet" else {}
    with without_init():
        model = get_model(name, weights=None, **kwargs)
    found = find_stages(graph_with_shapes(model, 224))
    assert list(found) == [f"stage{n + 1}" for n in range(len(STAGES[name]))]
    for node, region in zip(found.values(), STAGES[name], strict=True):
        assert f"{name_of(node)}.".startswith(f"{region}."), name_of(node)


def test_stages_of_the_bundled_network() -> None:
    model_graph = graph_of(digits_net(), "digits_net", {"x": (1, 8, 8)})
    record_shapes(model_graph)
    ends = {stage: name_of(node) for stage, node in find_stages(model_graph).items()}
    assert ends == {"stage1": "block2.pool", "stage2": "block3.pool"}


def test_regions_come_before_vertices() -> None:
    names = all_names(graph_with_shapes(TINY["residual"]()).vertices())
    assert names[:3] == ["layer1", "layer1.0", "layer1.1"]
    assert len(names) == len(set(names))


def test_flops_and_bytes_of_one_image() -> None:
    found = flops_of(graph_with_shapes(shake(TINY["chain"]())))
    assert found["conv"] == (2 * 8 * 8 * 8 * 3 * 9, 8 * 8 * 8 * 4)
    assert found["fc"] == (2 * 32 * 10, 40)
    assert found["flatten"][0] == 0


def test_a_base_with_several_inputs_is_refused() -> None:
    class TwoInputs(nn.Module):
        def forward(self, image: Tensor, mask: Tensor) -> Tensor:
            return image * mask

    with pytest.raises(NotTraceableError, match="reads 2 inputs: image, mask"):
        graph_of(TwoInputs(), "two", {"x": (3, 8, 8)})


def test_a_base_that_looks_at_its_data_is_refused() -> None:
    class Looks(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(NotTraceableError):
        graph_of(Looks(), "looks", {"x": (3, 8, 8)})
