from __future__ import annotations

import pytest
from graph.tiny import recipe_of

from passes.golden import check_golden, tiny_after
from tlcompile.passes.freeze_only import FreezeOnly

VERTICES = {"chain": "bn", "residual": "layer1.1", "branches": "right"}


@pytest.mark.parametrize("tiny", VERTICES)
def test_golden(tiny: str, update_goldens: bool) -> None:
    model_graph = check_golden(tiny, FreezeOnly(vertex=VERTICES[tiny]), update_goldens)
    assert not model_graph.frozen


def test_a_pattern_freezes_what_it_matches_alone() -> None:
    model_graph = tiny_after("residual", FreezeOnly(vertex=("match", "*.bn1")))
    assert model_graph.frozen_alone == {"layer1.0.bn1", "layer1.1.bn1"}
    assert model_graph.notes == ["freeze match '*.bn1': layer1.0.bn1, layer1.1.bn1"]
    assert not model_graph.frozen


def test_beside_only_nothing_else_is_frozen_unless_written() -> None:
    assert recipe_of("base: m\nfreeze: {only: conv}\n").freeze.upto == ("none",)
    assert recipe_of("base: m\nfreeze: {only: conv, upto: head}\n").freeze.upto == ("head",)
    assert recipe_of("base: m\n").freeze.upto == ("head",)


def test_a_region_is_all_of_its_vertices() -> None:
    found = tiny_after("residual", FreezeOnly(vertex="layer1.0")).frozen_alone
    assert found >= {"layer1.0.conv1", "layer1.0.relu_1"}
    assert "stem" not in found
