"""The splits of a run with their views: which images, changed how, under which row keys."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tlcompile.data.augment import Augmentation
from tlcompile.data.digests import Keys
from tlcompile.data.masks import MaskTargets
from tlcompile.data.samples import Samples
from tlcompile.data.targets import Targets
from tlcompile.data.views import Views, row_keys
from tlcompile.recipe.schema import Recipe
from tlcompile.zoo.preprocessing import Preprocessing


@dataclass(frozen=True)
class Part:
    """One split, as its features see it.

    Attributes:
        name: train, val or test.
        samples: Its images.
        views: Views an image that can be kept.
        augmentation: What makes a view; where there are none, what an epoch does.
        tags: For each view what decides its pixels; empty where each epoch draws anew.
    """

    name: str
    samples: Samples
    views: int
    augmentation: Callable[[int], Augmentation | None]
    tags: tuple[str, ...]

    def keys(self, digests: Keys) -> Keys:
        """Return the row keys, those of a sample's views together."""
        by_view = [row_keys(digests, tag) for tag in self.tags]
        return np.stack(by_view, axis=1).reshape(-1, digests.shape[1])

    def targets(self, preprocessing: Preprocessing, workers: int) -> Targets:
        """Return what the outputs are compared with; masks follow the views of their images."""
        if self.samples.masks:
            return MaskTargets(self.samples, preprocessing, self.augmentation, workers)
        return self.samples.targets()

    @property
    def as_they_are(self) -> bool:
        """Tell whether its images are not changed."""
        return self.tags == ("",)


def parts_of(recipe: Recipe, splits: Mapping[str, Samples], size: int) -> list[Part]:
    """Return splits, by name, with their views; `size` is the side of the model's images."""
    return [_part(recipe, name, samples, size) for name, samples in splits.items()]


def _part(recipe: Recipe, name: str, samples: Samples, size: int) -> Part:
    augment, views = recipe.data.augment, recipe.features.views
    if name == "train" and augment.train:
        if views is None:
            seeds = (augment.seed, recipe.fine_tune.seed)

            def drawn(epoch: int) -> Augmentation:
                return Augmentation(augment.on_train, size, seeds, epoch)

            return Part(name, samples, 1, drawn, ())
        kept = Views(augment.on_train, size, augment.seed, views)
        return Part(name, samples, views, kept.augmentation, tuple(map(kept.tag, range(views))))
    if name == "val" and augment.val:  # a shift of domain is the same each time
        shift = Augmentation(augment.on_val, size, augment.seed, 0)
        return Part(name, samples, 1, lambda _view: shift, (shift.tag,))
    return Part(name, samples, 1, lambda _view: None, ("",))
