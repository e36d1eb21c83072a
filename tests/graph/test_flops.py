"""FLOPs vertex by vertex add up to what torch counts for the whole model."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model

from tlcompile.graph.flops import flops_of
from tlcompile.graph.model_graph import graph_of, meta_twin
from tlcompile.graph.shapes import record_shapes
from tlcompile.zoo.building import without_init


def counted(module: nn.Module, side: int) -> tuple[dict[str, int], int]:
    """Return FLOPs by vertex, and torch's own count of the whole; both of one image."""
    model_graph = graph_of(module, "model", {"x": (3, side, side)})
    record_shapes(model_graph)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta_twin(module).eval()(torch.empty(1, 3, side, side, device="meta"))
    by_vertex = {name: flops for name, (flops, _) in flops_of(model_graph).items()}
    return by_vertex, int(counter.get_total_flops())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "vit_b_16"])
def test_vertices_add_up_to_the_whole(name: str) -> None:
    with without_init():
        module = get_model(name, weights=None)
    by_vertex, whole = counted(module, 224)
    assert whole > 1e7
    assert sum(by_vertex.values()) == whole


class Repeated(nn.Module):
    """Layers that print alike and work differently."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(self.pool(self.first(x)))
        wide = torch.flatten(x, 2)
        return torch.matmul(wide, wide.transpose(1, 2))


def test_equal_layers_on_other_sizes_are_counted_anew() -> None:
    by_vertex, whole = counted(Repeated(), 8)
    assert by_vertex["first"] == 4 * by_vertex["second"] == 2 * 64 * 3 * 27
    assert by_vertex["matmul"] == 2 * 3 * 3 * 16
    assert sum(by_vertex.values()) == whole
