"""A bundle: weights, recipe, classes, preprocessing and a golden sample, without pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from tlcompile.compiler import compile_opened
from tlcompile.durable.generations import Content, commit_folder
from tlcompile.model.compiled import CompiledModel
from tlcompile.model.saved import load_saved, tensor_files
from tlcompile.recipe.finished import RECIPE, RECORD, read_run
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo.open import open_origin
from tlcompile.zoo.preprocessing import Preprocessing


@dataclass(frozen=True)
class Bundle:
    """A model with all that is needed to use it.

    Attributes:
        model: In eval mode.
        classes: Names, in the order of the outputs.
        preprocessing: From an image to the model's input.
        task: What the logits mean.
        chunk_size: Images a pass of the frozen part.
        recipe: What it was trained by, resolved.
        record: What ran.
    """

    model: CompiledModel
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    task: str
    chunk_size: int
    recipe: Recipe
    record: dict[str, Any]


def save_bundle(
    folder: Path,
    model: CompiledModel,
    recipe: dict[str, Any],
    record: dict[str, Any],
    tensors: Mapping[str, Content] | None = None,
) -> None:
    """Write a bundle as one generation: the old one or the new one stands there, whole.

    Args:
        folder: Where; replaced as a whole.
        model: In any mode, on any device.
        recipe: Resolved.
        record: With classes, preprocessing, task, chunk_size and base; with the ancestry of a model
            that started from a run, so that the earlier runs' folders may go away.
        tensors: What `tensor_files` gives of the model, where it is known.
    """
    files = {
        **(tensors or tensor_files(model)),
        RECIPE: to_yaml(recipe).encode(),
        RECORD: (json.dumps(record, indent=1) + "\n").encode(),
    }
    commit_folder(folder, files)


def load_bundle(folder: str | Path, base: nn.Module | None = None) -> Bundle:
    """Load a bundle, or the bundle of a run's folder.

    Args:
        folder: A bundle/ folder, or the run's folder above it.
        base: Your own module, where the recipe was compiled from one.

    Raises:
        UnfinishedRunError: The run has not saved its model.
        NotABundleError: It holds no bundle.
        OwnModuleRunError: It was compiled from your own module, and `base` is missing.
        DamagedFileError: A file is not as it was written.
        WeightsMismatchError: Its tensors are another model's.
        GoldenMismatchError: It does not compute what it computed when it was saved.
    """
    run = read_run(folder)
    model = compile_opened(run.recipe, open_origin(run, base), len(run.classes))
    load_saved(model, run)
    return Bundle(
        model.eval(),
        run.classes,
        Preprocessing.from_dict(run.record["preprocessing"]),
        run.record["task"],
        run.record["chunk_size"],
        run.recipe,
        run.record,
    )
