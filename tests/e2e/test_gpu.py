"""On CUDA: training learns, TF32 is off, and a bundle from there loads on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.bundle import load_bundle
from tlcompile.run.train import train_recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.mark.parametrize("features", [{}, {"cache": "off"}])
def test_it_learns_and_its_bundle_loads_on_the_cpu(
    tmp_path: Path, features: dict[str, str]
) -> None:
    recipe = make_recipe(
        base={"model": "digits_net", "size": 16},
        freeze="conv1",
        data=str(make_pictures(tmp_path / "data", count=10, side=20)),
        features=features,
        fine_tune={"epochs": 15, "batch_size": 4, "optimizer": {"name": "adam", "lr": 0.02}},
        run={"device": "cuda"},
    )
    result = train_recipe(recipe, tmp_path / "run", base=TinyNet(dropout=0.0))
    assert next(result.model.parameters()).is_cuda
    assert result.history[-1].train.accuracy > 0.9
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    bundle = load_bundle(tmp_path / "run", base=TinyNet())
    assert not next(bundle.model.parameters()).is_cuda
    for name, tensor in bundle.model.state_dict().items():
        assert torch.equal(tensor, result.model.state_dict()[name].cpu()), name
