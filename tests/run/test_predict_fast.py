"""What was trained on fast features is asked by fast features: predict says what evaluate says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.bundle import load_bundle
from tlcompile.data.folder import scan_folder
from tlcompile.run.evaluate import outputs_of
from tlcompile.run.predict import predict_images
from tlcompile.run.train import train_recipe


@pytest.mark.parametrize("precision", ["exact", "fp32-fused", "fast"])
def test_predict_computes_as_the_run_did(tmp_path: Path, precision: str) -> None:
    pictures, base = make_pictures(tmp_path / "pictures", side=32), TinyNet()
    recipe = make_recipe(
        base={"model": "digits_net", "size": 32},
        data={"folder": str(pictures)},
        freeze="bn2",
        features={"precision": precision},
        fine_tune={"epochs": 1},
    )
    train_recipe(recipe, tmp_path / "run", base=base)
    bundle = load_bundle(tmp_path / "run", base)
    assert bundle.record["precision"] == precision
    samples = scan_folder(str(pictures))["all"]
    logits = torch.cat([found for found, _ in outputs_of(bundle, samples, workers=0)])
    chances = predict_images(bundle, [Path(name) for name in samples.ids], workers=0)[""]
    assert torch.equal(chances, logits.softmax(1))
