"""Every torchvision model that reads one tensor: no edits change nothing, heads and stages train."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from graph.tiny import recipe
from torch import nn

from parity.plain import (
    CLASSIFIERS,
    DETECTION,
    SEGMENTATION,
    VIDEO,
    compiled_at,
    differences,
    evaluated,
    images,
    leaves,
    plain_model,
    stepped,
)
from parity.test_prefix_suffix import InHalves
from tlcompile.compiler import prove_recipe
from tlcompile.errors.graph import UnknownStageError
from tlcompile.graph.model_graph import graph_of_base
from tlcompile.graph.shapes import record_shapes
from tlcompile.graph.stages import find_stages
from tlcompile.training.proof import FreezeProof
from tlcompile.zoo.torchvision import open_torchvision

NAMES = [*CLASSIFIERS, *SEGMENTATION, *VIDEO]
SAMPLE = ["googlenet", "efficientnet_b0", "lraspp_mobilenet_v3_large", "r3d_18"]
QUICK = ["mobilenet_v2", "lraspp_mobilenet_v3_large"]
STAGES = ["stage1", "stage2", "stage3", "stage4"]
FEW_BYTES = 120e6  # of weights, up to which gradients are compared, too
NO_GRADIENTS = 700e6  # bytes of weights above which two sets of gradients do not fit beside them


def every(sample: list[str]) -> list[object]:
    """Return all names, the sample in the default suite and the rest marked slow."""
    slow = [pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name not in sample]
    return [*sample, *slow]


def test_the_zoo_is_what_it_was() -> None:
    counts = [len(names) for names in (CLASSIFIERS, SEGMENTATION, VIDEO, DETECTION)]
    assert counts == [80, 6, 9, 12]
    assert len(every(SAMPLE)) == len(NAMES) == 95


@pytest.mark.parametrize("name", every(SAMPLE))
def test_compiled_without_edits_is_the_original(name: str) -> None:
    model, x = plain_model(name), images(name)
    compiled = compiled_at(name, model, "none")
    assert list(compiled.state_dict()) == list(model.state_dict())
    for ours, theirs in zip(evaluated(compiled, x), evaluated(model, x), strict=True):
        assert torch.equal(ours, theirs)
    small = sum(p.numel() * 4 for p in model.parameters()) < NO_GRADIENTS
    theirs = stepped(model, x, backward=small)
    itself = differences(theirs, stepped(_restored(model, compiled), x, backward=small))
    ours = differences(stepped(compiled, x, backward=small), theirs)
    assert set(ours) <= set(itself)
    gc.collect()


def _restored(model: nn.Module, compiled: nn.Module) -> nn.Module:
    """Return the original again, with the buffers that it had before its step."""
    again = copy.deepcopy(model)
    again.zero_grad()
    again.load_state_dict(compiled.state_dict())
    return again


def stages_of(name: str) -> list[str]:
    opened = open_torchvision(name, "default", None, load=False)
    model_graph = graph_of_base(opened)
    record_shapes(model_graph)
    return list(find_stages(model_graph))


def point_of(name: str, stage: str) -> str | dict[str, int]:
    """Write a stage so that shufflenet's own stage2 is not meant."""
    return {"stage": int(stage[-1])} if name.startswith("shufflenet") else stage


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_stage_compiles_with_a_new_head(name: str) -> None:
    stages = stages_of(name)
    assert stages
    for stage in ("head", *stages):
        point = stage if stage == "head" else point_of(name, stage)
        wanted = recipe(base={"model": name}, freeze={"upto": [point]})
        compiled = prove_recipe(wanted, num_classes=7)
        two = stage == "head" and name.startswith("lraspp")
        assert len(compiled.boundary) == (2 if two else 1), stage
        shapes = {row.name: row.shape for row in compiled.summary.vertices}
        assert shapes[compiled.summary.outputs[0]].startswith("(N, 7")
    gc.collect()


@pytest.mark.parametrize("name", QUICK)
def test_halves_are_the_whole(name: str) -> None:
    check_halves(name, [*stages_of(name)[:1], "head"])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_halves_are_the_whole_at_each_stage(name: str) -> None:
    check_halves(name, [*STAGES, "head"])


def check_halves(name: str, points: list[str]) -> None:
    """Compare prefix and suffix with the whole, to the bit, in eval and in train mode."""
    model, x, stages = plain_model(name), images(name, 2), stages_of(name)
    small = sum(p.numel() * 4 for p in model.parameters()) < FEW_BYTES
    for point in points:
        where = point if point == "head" else point_of(name, point)
        if point not in (*stages, "head"):
            with pytest.raises(UnknownStageError, match=f"has no {point}"):
                compiled_at(name, model, where)
            continue
        compiled = compiled_at(name, model, where)
        halves = InHalves(compiled)
        assert compiled.boundary, point
        for ours, theirs in zip(evaluated(halves, x), evaluated(compiled, x), strict=True):
            assert torch.equal(ours, theirs), point
        before = {key: buffer.clone() for key, buffer in compiled.named_buffers()}
        whole = stepped(compiled, x, backward=small)
        for key, buffer in compiled.named_buffers():
            buffer.copy_(before[key])
        assert not differences(stepped(halves, x, backward=small), whole), point
        gc.collect()


@pytest.mark.parametrize("name", QUICK)
def test_what_is_frozen_stays_and_the_rest_trains(name: str) -> None:
    check_training(name, ["head", stages_of(name)[0]])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_is_frozen_stays_at_each_stage(name: str) -> None:
    check_training(name, ["head", *stages_of(name)])


def check_training(name: str, points: list[str]) -> None:
    """Take three steps at each freeze point: what is frozen keeps its bytes, the rest has gradients."""
    assert len(points) > 1
    model, x = plain_model(name), images(name)
    for point in points:
        where = point if point == "head" else point_of(name, point)
        compiled = compiled_at(name, model, where, head="auto").train()
        proof = FreezeProof.take(compiled)
        optimizer = torch.optim.SGD([p for _, p in compiled.trainable()], lr=1e-3)
        grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
        for _ in range(3):
            optimizer.zero_grad()
            sum(leaf.square().mean() for leaf in leaves(compiled(x))).backward()  # type: ignore[union-attr]
            proof.see_gradients(compiled)
            optimizer.step()
        proof.check(compiled)
        frozen = {id(t) for n, t in compiled.named_parameters() if n in compiled.frozen.tensors}
        assert len(grouped) == len(set(grouped))
        assert set(grouped).isdisjoint(frozen)
        assert len(grouped) + len(frozen) == len(list(compiled.parameters()))
        gc.collect()
