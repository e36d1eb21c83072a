"""Labelled images that are not read yet, and the choice of some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tlcompile.data.targets import Targets, TensorTargets
from tlcompile.data.threads import in_order
from tlcompile.errors.data import (
    TooFewImagesError,
    TooManyPixelsError,
    UnknownClassError,
    UnreadableImagesError,
    UnsupportedImageError,
)


@dataclass(frozen=True)
class Samples:
    """Images with labels, in two steps, so that the bytes that are hashed are those that are decoded.

    Args:
        ids: One name a sample: its path, or what a bundled data set calls it.
        labels: One position in `classes` a sample; none where a sample has no one class.
        classes: Class names, or those of the numbers to predict; the order is the order of the
            model's outputs.
        fetch: Gives the stored bytes of a sample; called from several threads at once.
        decode: Makes uint8 (C, H, W) of a sample's bytes; also from several threads.
        values: What is to be predicted, where it is not `labels`: several labels or numbers a
            sample, or one such tensor an output.
        names: As `classes`, of each output, where there are several.
        masks: One mask file a sample, for segmentation.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    fetch: Callable[[int], bytes]
    decode: Callable[[int, bytes], Tensor]
    values: Tensor | Mapping[str, Tensor] | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    masks: tuple[str, ...] = ()

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
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen) if self.labels else (),
            fetch=lambda i: self.fetch(chosen[i]),
            decode=lambda i, data: self.decode(chosen[i], data),
            values=_rows(self.values, chosen),
            masks=tuple(self.masks[i] for i in chosen) if self.masks else (),
        )

    def targets(self) -> Targets:
        """Return what the outputs are compared with: class indices, unless there are values."""
        if self.values is not None:
            return TensorTargets(self.values)
        return TensorTargets(torch.tensor(self.labels, dtype=torch.int64))

    def counts(self) -> dict[str, int]:
        """Count the images of every class, 0 included; nothing, where an image has no one class."""
        counts = dict.fromkeys(self.classes, 0) if self.labels else {}
        for label in self.labels:
            counts[self.classes[label]] += 1
        return counts

    def members(self) -> list[list[int]]:
        """List the samples of every class, in order."""
        members: list[list[int]] = [[] for _ in self.classes]
        for index, label in enumerate(self.labels):
            members[label].append(index)
        return members


def _rows(
    values: Tensor | Mapping[str, Tensor] | None, chosen: Sequence[int]
) -> Tensor | Mapping[str, Tensor] | None:
    if isinstance(values, Mapping):
        return {name: tensor[list(chosen)] for name, tensor in values.items()}
    return None if values is None else values[list(chosen)]


def class_counts(samples: Samples, output: str = "") -> dict[str, int]:
    """Count the images of every class, or those with each label, where there are several.

    Args:
        samples: What to count.
        output: Which output, where there are several.
    """
    values, names = samples.values, samples.names.get(output, samples.classes)
    if values is None:
        return samples.counts()
    tensor = values[output] if isinstance(values, Mapping) else values
    if tensor.dtype == torch.int64:
        counts = torch.bincount(tensor, minlength=len(names))
    else:
        counts = (tensor > 0).sum(0)
    return dict(zip(names, counts.tolist(), strict=True))


def unreadable(samples: Samples, workers: int) -> list[tuple[str, str]]:
    """Read every image once; return (path, reason) of those that cannot be read, in order."""

    def trouble(index: int) -> str | None:
        try:
            samples.read(index)
        except (UnreadableImagesError, UnsupportedImageError, TooManyPixelsError) as error:
            return error.reason()
        return None

    reasons = in_order(trouble, range(len(samples)), workers)
    return [(name, why) for name, why in zip(samples.ids, reasons, strict=True) if why]


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
    if isinstance(samples.values, Tensor):
        columns = [samples.classes.index(name) for name in classes]
        return replace(samples, values=samples.values[:, columns], classes=classes)
    if not samples.labels:
        return samples  # of masks or several outputs the order is not ours to change
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
