"""Labelled images that are not read yet, and the choice of some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tlcompile.errors.data import TooFewImagesError, UnknownClassError


@dataclass(frozen=True)
class Samples:
    """Images with labels, in two steps, so that the bytes that are hashed are those that are decoded.

    Args:
        ids: One name a sample: its path, or what a bundled data set calls it.
        labels: One position in `classes` a sample.
        classes: Class names; the order is the order of the model's outputs.
        fetch: Gives the stored bytes of a sample; called from several threads at once.
        decode: Makes uint8 (C, H, W) of a sample's bytes; also from several threads.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    fetch: Callable[[int], bytes]
    decode: Callable[[int, bytes], Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Tensor:
        """Read one image.

        Shape:
            out: (C, H, W) uint8
        """
        return self.decode(index, self.fetch(index))

    def subset(self, indices: Sequence[int]) -> Samples:
        """Keep these samples, in this order; the classes stay as they are."""
        chosen = tuple(indices)
        return Samples(
            ids=tuple(self.ids[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            classes=self.classes,
            fetch=lambda i: self.fetch(chosen[i]),
            decode=lambda i, data: self.decode(chosen[i], data),
        )

    def counts(self) -> dict[str, int]:
        """Count the images of every class; a class without any counts 0."""
        counts = dict.fromkeys(self.classes, 0)
        for label in self.labels:
            counts[self.classes[label]] += 1
        return counts

    def members(self) -> list[list[int]]:
        """List the samples of every class, in order."""
        members: list[list[int]] = [[] for _ in self.classes]
        for index, label in enumerate(self.labels):
            members[label].append(index)
        return members


def generator(*parts: object) -> torch.Generator:
    """Make a generator that depends on `parts` alone and shares no state with another.

    Hashed, because neighbouring seeds of one generator need not give independent numbers.
    """
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def choose(
    samples: Samples,
    *,
    classes: Sequence[str] | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> Samples:
    """Keep some classes, then some images of each.

    Args:
        samples: What to choose from.
        classes: Classes to keep; their order becomes the order of the labels.
        per_class: Images to keep of each class, drawn at random; the order stays.
        seed: Decides the draw, for each class alone: other classes or a larger `per_class`
            do not change which images come first.

    Raises:
        UnknownClassError: A name in `classes` is not a class.
        TooFewImagesError: A class has fewer than `per_class` images.
    """
    if classes is not None:
        samples = _of_classes(samples, tuple(classes))
    if per_class is not None:
        samples = _drawn(samples, per_class, seed)
    return samples


def _of_classes(samples: Samples, classes: tuple[str, ...]) -> Samples:
    unknown = tuple(name for name in classes if name not in samples.classes)
    if unknown:
        raise UnknownClassError(
            names=unknown,
            classes=samples.classes,
            place="data.classes",
            key=("data", "classes", classes.index(unknown[0])),
        )
    label_of = {samples.classes.index(name): label for label, name in enumerate(classes)}
    kept = samples.subset([i for i, label in enumerate(samples.labels) if label in label_of])
    labels = tuple(label_of[label] for label in kept.labels)
    return replace(kept, labels=labels, classes=classes)


def _drawn(samples: Samples, per_class: int, seed: int) -> Samples:
    short = tuple((name, n) for name, n in samples.counts().items() if n < per_class)
    if short:
        raise TooFewImagesError(wanted=per_class, counts=short, key=("data", "per_class"))
    kept: list[int] = []
    for name, members in zip(samples.classes, samples.members(), strict=True):
        order = torch.randperm(len(members), generator=generator(seed, "per_class", name))
        kept += [members[i] for i in order[:per_class].tolist()]
    return samples.subset(sorted(kept))
