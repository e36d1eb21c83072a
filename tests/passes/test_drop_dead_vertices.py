from __future__ import annotations

import pytest
from torch import nn

from passes.golden import check_golden, check_promise_can_fail, tiny_after
from tlcompile.passes.drop_dead_vertices import DropDeadVertices
from tlcompile.passes.set_outputs import SetOutputs

OUTPUTS = {"chain": "pool", "residual": "layer1.0", "branches": "left"}


@pytest.mark.parametrize("tiny", OUTPUTS)
def test_golden(tiny: str, update_goldens: bool) -> None:
    before = [SetOutputs(vertices=(OUTPUTS[tiny],))]
    check_golden(tiny, DropDeadVertices(), update_goldens, before)


def test_weights_that_nothing_uses_are_deleted() -> None:
    cut = tiny_after("residual", SetOutputs(vertices=("layer1.0",)), DropDeadVertices())
    assert list(dict(cut.module.named_children())) == ["stem", "layer1"]
    assert list(dict(cut.module.layer1.named_children())) == ["0"]  # type: ignore[union-attr,arg-type]
    assert cut.dropped["fc"] == "nothing reads it any more"


def test_the_promise_can_fail() -> None:
    damaged = tiny_after("chain", SetOutputs(vertices=("pool",)))
    check_promise_can_fail(DropDeadVertices(), damaged, "an output reads 'fc'")
    unused = tiny_after("chain", DropDeadVertices())
    unused.module.add_module("spare", nn.Linear(2, 2))
    check_promise_can_fail(DropDeadVertices(), unused, "uses 'spare.weight'")
