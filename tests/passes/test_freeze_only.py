from __future__ import annotations

import pytest

from passes.golden import check_golden, tiny_after
from tlcompile.passes.freeze_only import FreezeOnly

VERTICES = {"chain": "bn", "residual": "layer1.1", "branches": "right"}


@pytest.mark.parametrize("tiny", VERTICES)
def test_golden(tiny: str, update_goldens: bool) -> None:
    model_graph = check_golden(tiny, FreezeOnly(vertex=VERTICES[tiny]), update_goldens)
    assert not model_graph.frozen


def test_a_region_is_all_of_its_vertices() -> None:
    found = tiny_after("residual", FreezeOnly(vertex="layer1.0")).frozen_alone
    assert found >= {"layer1.0.conv1", "layer1.0.relu_1"}
    assert "stem" not in found
