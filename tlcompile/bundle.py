"""A bundle: weights, recipe, classes, preprocessing and a golden sample, without pickle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from tlcompile.compiler import skeleton
from tlcompile.durable.generations import commit_folder
from tlcompile.durable.manifest import MANIFEST, read_verified
from tlcompile.errors.run import NotABundleError
from tlcompile.errors.training import GoldenMismatchError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.yaml_reader import read_recipe_text
from tlcompile.zoo.building import load_exactly
from tlcompile.zoo.preprocessing import Preprocessing

FILES = ("model.safetensors", "recipe.yaml", "record.json", "golden.safetensors")
WEIGHTS = FILES[0]
# Relative to the largest output: versions and devices differ in the last bits (1e-6 .. 1e-4, TF32
# included), another model differs in the first.
GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Bundle:
    """A model with all that is needed to use it.

    Attributes:
        model: In eval mode.
        classes: Names, in the order of the outputs.
        preprocessing: From an image to the model's input.
        task: What the logits mean.
        chunk_size: Images a pass of the frozen part.
        record: What ran.
    """

    model: CompiledModel
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    task: str
    chunk_size: int
    record: dict[str, Any]


def save_bundle(
    folder: Path, model: CompiledModel, recipe: dict[str, Any], record: dict[str, Any]
) -> None:
    """Write a bundle as one generation: the old one or the new one stands there, whole.

    Args:
        folder: Where; replaced as a whole.
        model: In any mode, on any device.
        recipe: Resolved.
        record: With classes, preprocessing, task and chunk_size.
    """
    tensors = {name: _on_disk(t) for name, t in model.state_dict().items()}
    files = {
        "model.safetensors": save_tensors(tensors, {"format": "pt"}),
        "recipe.yaml": to_yaml(recipe).encode(),
        "record.json": (json.dumps(record, indent=1) + "\n").encode(),
        "golden.safetensors": save_tensors(golden_sample(model), {"format": "pt"}),
    }
    commit_folder(folder, files)


def _on_disk(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous().clone()


def golden_sample(model: CompiledModel) -> dict[str, Tensor]:
    """Return a fixed input and the model's output for it, to be compared after loading."""
    shape = next(iter(model.summary.sample_shapes.values()))
    image = torch.linspace(-2, 2, steps=torch.Size(shape).numel()).reshape(1, *shape)
    device = next(iter(model.state_dict().values())).device
    mode = model.training
    model.eval()
    with torch.no_grad():
        returned = model(image.to(device))
    model.train(mode)
    outputs = returned if isinstance(returned, dict) else {"output": returned}
    return {"input": image, **{f"output.{k}": _on_disk(v) for k, v in outputs.items()}}


def _compare_golden(model: CompiledModel, saved: dict[str, Tensor], path: Path) -> None:
    for name, now in golden_sample(model).items():
        then = saved.get(name)
        fits = then is not None and then.shape == now.shape
        scale = float(then.abs().max()) if fits and then is not None else 0.0
        difference = float((now - then).abs().max()) if fits and then is not None else math.inf
        tolerance = GOLDEN_TOLERANCE * max(scale, 1e-6)
        if not difference <= tolerance:  # so that NaN differs too
            raise GoldenMismatchError(path=str(path), difference=difference, tolerance=tolerance)


def load_bundle(folder: str | Path, base: nn.Module | None = None) -> Bundle:
    """Load a bundle, or the bundle of a run's folder.

    Args:
        folder: A bundle/ folder, or the run's folder above it.
        base: Your own module, where the recipe was compiled from one.

    Raises:
        NotABundleError: It holds no bundle.
        DamagedFileError: A file is not as it was written.
        WeightsMismatchError: Its tensors are another model's.
        GoldenMismatchError: It does not compute what it computed when it was saved.
    """
    path = Path(folder)
    if (path / "bundle").is_dir():
        path = path / "bundle"
    missing = tuple(name for name in (MANIFEST, *FILES) if not (path / name).is_file())
    if missing:
        raise NotABundleError(path=path, missing=missing)
    record = json.loads(read_verified(path, "record.json"))
    text = read_verified(path, "recipe.yaml").decode()
    root = spell_out(read_recipe_text(text, str(path / "recipe.yaml")))
    recipe = recipe_from(root, (), "bundle")
    model = skeleton(recipe, base, num_classes=len(record["classes"]))
    tensors = load_tensors(read_verified(path, WEIGHTS))
    load_exactly(model, tensors, source=str(path / WEIGHTS), model=recipe.name)
    _compare_golden(model, load_tensors(read_verified(path, "golden.safetensors")), path)
    return Bundle(
        model.eval(),
        tuple(record["classes"]),
        Preprocessing.from_dict(record["preprocessing"]),
        record["task"],
        record["chunk_size"],
        record,
    )
