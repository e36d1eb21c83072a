"""Compare the freeze points of a recipe by what their features tell; nothing is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tlcompile.compiler import compile_opened, compile_together
from tlcompile.data.samples import Samples
from tlcompile.data.split import stratified_split
from tlcompile.errors.advice import NoAdviceForTaskError, TooFewToCompareError
from tlcompile.errors.data import DataError
from tlcompile.errors.graph import GraphError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.freeze import Freeze
from tlcompile.recipe.load import complete
from tlcompile.recipe.schema import Recipe
from tlcompile.run.device import choose_device, exactly
from tlcompile.run.features import SourceBuilder
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.run.freeze_points import Candidate, LeftOut, at, find_points
from tlcompile.run.refuse import refuse_other_classes, refuse_other_data
from tlcompile.run.say import progress
from tlcompile.run.splits import Say, check_readable, open_splits, refuse_no_data
from tlcompile.run.vectors import vectors_of
from tlcompile.sweep.advice import Confidence, Ranked, Scored, confidence, ranked
from tlcompile.sweep.transferability import h_score, leep, log_me, probe
from tlcompile.zoo.open import open_base
from tlcompile.zoo.preprocessing import Preprocessing

MOST_IMAGES = 1000  # training images: a minute's work; twice as many narrow an interval by a third
FEWEST = 10  # images with numbers to predict
PART = "images"  # not `train`: what training changes in an image at random stays as it is here

Targets = NDArray[Any]  # (n,) class indices, or (n, k) numbers


@dataclass(frozen=True)
class Advice:
    """What is known of the freeze points of a recipe.

    Attributes:
        name: The recipe's.
        model: The base's.
        images: Training images that were looked at.
        total: Training images.
        classes: How many they are of; None: the targets are numbers.
        points: The best first.
        confidence: How far that can be believed.
        leep: Of the base's own classifier, as it is; None: it has none.
        floor: What LEEP is where a classifier knows nothing.
        left_out: Stages of the base that were not compared.
        seconds: Wall time.
    """

    name: str
    model: str
    images: int
    total: int
    classes: int | None
    points: tuple[Ranked, ...]
    confidence: Confidence
    leep: float | None
    floor: float | None
    left_out: tuple[LeftOut, ...]
    seconds: float

    def scores(self) -> dict[str, dict[str, float]]:
        """Return each score by freeze point, under all of its names: for `ranking_quality`.

        `rank` orders the points as the advice does: 0 for the best, -1 for the next.
        """
        found: dict[str, dict[str, float]] = {}
        for one in self.points:
            told = {"rank": 1.0 - one.rank, **one.scored.measures()}
            for name in (one.scored.point, *one.scored.also):
                for measure, value in told.items():
                    found.setdefault(measure, {})[name] = value
        return found


def advise(
    recipe: Recipe,
    named: Sequence[Recipe] = (),
    *,
    base: nn.Module | None = None,
    images: int | None = None,
    say: Say = lambda _line: None,
) -> Advice:
    """Compare the freeze points of a recipe's first phase.

    Rows come from the store and go there under the keys that runs give them, so a sweep finds them,
    and asking twice computes nothing twice.

    Args:
        recipe: What the user asked for.
        named: The same with points to compare beside the base's own, such as those of a sweep.
        base: Your own module instead of the recipe's base; it is copied.
        images: Training images at most, drawn class by class; None: MOST_IMAGES.
        say: Takes lines for the user.

    Raises:
        TLCompileError: Anything that the recipe, the data or the machine has to mend.
    """
    started = time.perf_counter()
    recipe = complete(recipe)
    _refuse_early(recipe, base)
    device = choose_device(recipe)
    exactly(deterministic=recipe.run.deterministic)
    keep_freed_memory()
    opened = open_base(at(recipe, Freeze()), base)
    splits = open_splits(recipe, opened.preprocessing.channels, say, opened.categories)
    most = MOST_IMAGES if images is None else images
    some = _drawn(splits.train, most, recipe.fine_tune.seed)
    _refuse_few(recipe, some, most, len(splits.train))
    points, left = find_points(recipe, named, len(splits.classes), base)
    recipes = [one.recipe for one in points]
    model = compile_together(recipes, opened, len(splits.classes)).to(device)
    refuse_other_classes(recipe, model, splits.classes)
    vectors, targets = _rows(recipes[0], opened.preprocessing, model, some, say)
    targets = _standardised(targets)
    scored = _score_all(points, vectors, targets)
    classes = len(np.unique(targets)) if targets.ndim == 1 else None
    order = ranked(scored)
    own = _leep(recipe, base, some, targets, device) if classes else None
    return Advice(
        recipe.name,
        opened.name,
        len(some),
        len(splits.train),
        classes,
        tuple(order),
        confidence(order, classes),
        own,
        None if own is None else _entropy(targets),
        tuple(left),
        time.perf_counter() - started,
    )


def _refuse_early(recipe: Recipe, base: nn.Module | None) -> None:
    """Refuse what the recipe alone tells, before weights are read."""
    if recipe.task == "segmentation" or not isinstance(recipe.task, str):
        word = "segmentation" if isinstance(recipe.task, str) else "several outputs"
        error = NoAdviceForTaskError(task=word, key=("task",))
        raise error.at(recipe.where(error.key))
    if base is None:
        refuse_other_data(recipe)
    refuse_no_data(recipe)


def _drawn(train: Samples, images: int, seed: int) -> Samples:
    """Keep so many images at most, of each class its share."""
    if len(train) <= images:
        return train
    kept, _ = stratified_split(train, 1 - images / len(train), seed)
    return kept


def _refuse_few(recipe: Recipe, some: Samples, images: int, total: int) -> None:
    """Refuse one class, a class with one image, and numbers that are all alike.

    Raises:
        TooFewToCompareError: It holds the classes, or the columns.
    """
    counts = {name: count for name, count in some.counts().items() if count}
    single = tuple((name, count) for name, count in counts.items() if count < 2)
    found: tuple[tuple[str, int], ...] = ()
    wanted = "two classes or more, each with two images or more"
    if some.labels and len(counts) < 2:
        found = tuple(counts.items()) or (("images", 0),)
    elif some.labels:
        found = single
    elif len(some) < FEWEST:
        found, wanted = (("images", len(some)),), f"{FEWEST} images or more"
    elif isinstance(some.values, torch.Tensor):
        different = [len(column.unique()) for column in some.values.T]
        if max(different) < 2:
            found = tuple(zip(some.classes, different, strict=True))
            wanted = "a column with two different values or more"
    if found:
        key = next(
            ("data", name) for name in ("csv", "folder", "dataset", "huggingface")
            if getattr(recipe.data, name) is not None
        )  # fmt: skip
        error = TooFewToCompareError(
            counts=found, images=images, total=total, wanted=wanted, key=key
        )
        raise error.at(recipe.where(key))


def _rows(
    recipe: Recipe, preprocessing: Preprocessing, model: CompiledModel, some: Samples, say: Say
) -> tuple[dict[str, NDArray[np.float64]], Targets]:
    """Return the vectors of each boundary and the targets, in one pass over the images."""
    builder = SourceBuilder(recipe, preprocessing, model, choose_device(recipe), say)
    names = [one.vertex for one in model.boundary]
    try:
        source = builder.sources({PART: some})[PART]
        with progress("averaging over places", len(some)) as advance:
            return vectors_of(source, names, advance)
    except DataError:
        check_readable(recipe, [some])
        raise


def _standardised(targets: Targets) -> Targets:
    """Return classes as they are; of numbers the columns that vary, in standard deviations."""
    if targets.ndim == 1:
        return targets
    numbers = targets.astype(np.float64)
    varied = numbers[:, numbers.std(0) > 0]
    found: Targets = (varied - varied.mean(0)) / varied.std(0)
    return found


def _score_all(
    points: Sequence[Candidate], vectors: dict[str, NDArray[np.float64]], targets: Targets
) -> list[Scored]:
    with progress("scores of freeze points", len(points)) as advance:
        scored = []
        for one in points:
            features = np.concatenate([vectors[name] for name in one.boundary], axis=1)
            scored.append(_score(one, features, targets))
            advance(1)
    return scored


def _score(one: Candidate, features: NDArray[np.float64], targets: Targets) -> Scored:
    of_classes = targets.ndim == 1
    return Scored(
        point=one.text,
        also=one.also,
        num_bytes=one.num_bytes,
        trainable=one.trainable,
        width=features.shape[1],
        log_me=log_me(features, targets),
        h_score=h_score(features, targets) if of_classes else None,
        h_score_shrunk=h_score(features, targets, shrunk=True) if of_classes else None,
        probe=probe(features, targets),
    )


def _leep(
    recipe: Recipe, base: nn.Module | None, some: Samples, labels: Targets, device: torch.device
) -> float | None:
    """Return LEEP of the base's own classifier, before any edit; None: it has none that fits."""
    nothing: dict[str, Any] = {"remove": {}, "resize": {}, "add": {}, "outputs": None}
    kept = recipe.model_copy(update={**nothing, "head": "keep"})
    kept = at(kept, Freeze(upto=("all",)))
    try:
        opened = open_base(kept, base)
        model = compile_opened(kept, opened, None).to(device)
    except GraphError:  # it returns several values, or draws random numbers
        return None
    if len(model.boundary) != 1 or len(model.boundary[0].shape) != 1:
        return None
    vectors, _ = _rows(kept, opened.preprocessing, model, some, lambda _line: None)
    (logits,) = vectors.values()
    if logits.shape[1] < 2:
        return None
    return leep(torch.from_numpy(logits).softmax(1).numpy(), labels)


def _entropy(labels: Targets) -> float:
    """Return minus the entropy of the labels: what one knows of them who looks at no image."""
    _, counts = np.unique(labels, return_counts=True)
    shares = counts / counts.sum()
    return math.fsum(shares * np.log(shares))
