from __future__ import annotations

import pytest
import torch
from graph.tiny import graph_with_shapes
from parity.plain import plain_model
from torch import Tensor, nn

from passes.golden import check_golden
from tlcompile.errors.edits import HeadError
from tlcompile.graph.head import find_head
from tlcompile.graph.names import name_of
from tlcompile.passes.drop_dead_vertices import DropDeadVertices
from tlcompile.passes.pipeline import run_passes
from tlcompile.passes.replace_head import ReplaceHead

HEAD = ReplaceHead(classes=5, seed=0)


@pytest.mark.parametrize("tiny", ["chain", "residual", "branches"])
def test_golden(tiny: str, update_goldens: bool) -> None:
    check_golden(tiny, HEAD, update_goldens)


@pytest.mark.parametrize(
    ("model", "classifier", "feature", "head"),
    [
        ("vgg16", "classifier.6", "classifier.4", ["classifier.5", "classifier.6"]),
        (
            "squeezenet1_0",
            "classifier.1",
            "features.12.cat",
            ["classifier.0", "classifier.1", "classifier.2", "classifier.3", "flatten"],
        ),
    ],
)
def test_where_the_head_begins(model: str, classifier: str, feature: str, head: list[str]) -> None:
    model_graph = graph_with_shapes(plain_model(model), 64)
    found = find_head(model_graph)
    assert found is not None
    assert name_of(found.classifier) == classifier
    assert [name_of(node) for node in found.features] == [feature]
    assert [name_of(n) for n in found.vertices if n.op != "output"] == head
    run_passes(model_graph, [HEAD, DropDeadVertices()])
    assert "classifier.2" not in model_graph.names() or model == "vgg16"
    assert model_graph.output().all_input_nodes[0].meta["values"][0].shape == (2, 5)


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Bilinear(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, :4]
        return self.fc(x, x)  # type: ignore[no-any-return]


class Empty(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(x, 1)


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.flatten(1)[:, :4]
        return self.fc(x), x


@pytest.mark.parametrize(
    ("model", "word"), [(Bilinear, "is a Bilinear"), (Empty, "no vertex"), (Several, "several")]
)
def test_a_head_that_cannot_be_replaced(model: type[nn.Module], word: str) -> None:
    with pytest.raises(HeadError, match=word):
        run_passes(graph_with_shapes(model()), [HEAD])
