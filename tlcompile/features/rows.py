"""Features with the labels of their samples, in memory or in a folder. Knows nothing of models."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor
from torch.utils import _pytree as pytree

from tlcompile.data.targets import Pair, Targets
from tlcompile.durable import MANIFEST, commit_folder, read_verified, recover
from tlcompile.errors.fitting import NotFeaturesError, WrongFeaturesError
from tlcompile.features.batches import Labels, form_of
from tlcompile.features.fingerprint import differs, key_of
from tlcompile.features.layout import unpermuted
from tlcompile.features.prefix import Rows, gather, join
from tlcompile.features.sources import Batches, trainable
from tlcompile.store.about import About
from tlcompile.store.blocks import memory_order

FORMAT: Final = 1
ABOUT, ROWS, LABELS = "features.json", "rows.safetensors", "labels.safetensors"


@dataclass(frozen=True, repr=False)
class Features:
    """What the frozen part computes for some samples, with their labels.

    Attributes:
        rows: One tensor (N, *shape) for each vertex of the boundary, on the CPU.
        labels: As the loader gave them, joined; None where it gave none.
        made_by: What computed them, for each vertex of the boundary.
    """

    rows: Rows
    labels: Labels
    made_by: tuple[About, ...]

    def __len__(self) -> int:
        return len(self.rows[0])

    def __repr__(self) -> str:
        shown = ", ".join(f"{one.vertex} {one.shape}" for one in self.made_by)
        return f"<Features of {len(self)} samples: {shown}; {self.num_bytes:,} bytes>"

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.rows)

    def __add__(self, other: Features) -> Features:
        """Return both; samples that are labelled later cost only themselves.

        Raises:
            WrongFeaturesError: Another frozen part computed them, or the labels are of another form.
        """
        if not isinstance(other, Features):
            return NotImplemented
        refuse_made_by_another(other, self.made_by)
        if form_of(self.labels) != form_of(other.labels):
            raise WrongFeaturesError(differences=("labels",))
        return Features(
            join([self.rows, other.rows]),
            join_labels([self.labels, other.labels]),
            self.made_by,
        )

    def take(self, indices: Sequence[int] | slice | Tensor) -> Features:
        """Return the features of some samples, in this order: features.take(slice(0, 100))."""
        index = torch.arange(len(self))[indices]
        labels = pytree.tree_map_only(Tensor, lambda leaf: leaf[index], self.labels)
        return replace(self, rows=gather(self.rows, index), labels=labels)

    def save(self, folder: str | Path) -> None:
        """Write a folder, whole or not at all; features that stand there are replaced.

        Raises:
            RunError: The disk did not let it; what was there stays.
        """
        tensors: dict[str, Tensor] = {}
        about = {
            "format": FORMAT,
            "orders": [memory_order(rows) for rows in self.rows],
            "labels": _spelled(self.labels, tensors),
            "made_by": [asdict(one) for one in self.made_by],
        }
        rows = {
            str(number): one.permute(memory_order(one)).contiguous()
            for number, one in enumerate(self.rows)
        }
        files = {
            ABOUT: (json.dumps(about, indent=1) + "\n").encode(),
            ROWS: save_tensors(rows, {"format": "pt"}),
            LABELS: save_tensors(tensors, {"format": "pt"}),
        }
        commit_folder(Path(folder), files)

    @classmethod
    def load(cls, folder: str | Path) -> Features:
        """Read what `save` wrote.

        Raises:
            NotFeaturesError: The folder holds something else.
            DamagedFileError: A file is not as it was written.
        """
        path = Path(folder)
        recover(path)
        if not (path / MANIFEST).is_file():
            raise NotFeaturesError(path=path, found=_what_is_there(path))
        about, rows, tensors = (read_verified(path, name) for name in (ABOUT, ROWS, LABELS))
        fields = json.loads(about)
        if fields["format"] != FORMAT:
            raise NotFeaturesError(path=path, found=f"features of format {fields['format']}")
        stored = load_tensors(rows)
        return cls(
            tuple(unpermuted(stored[str(i)], order) for i, order in enumerate(fields["orders"])),
            _read(fields["labels"], load_tensors(tensors)),
            tuple(About(**{**one, "shape": tuple(one["shape"])}) for one in fields["made_by"]),
        )


@dataclass(frozen=True)
class LabelTargets:
    """Labels in any form: a tensor, or tensors in dicts and tuples."""

    labels: Labels

    def __len__(self) -> int:
        return len(next(iter(pytree.tree_leaves(self.labels))))

    def take(self, pairs: Sequence[Pair]) -> Any:
        """Return the labels of these samples."""
        chosen = [sample for sample, _ in pairs]
        return pytree.tree_map_only(Tensor, lambda leaf: leaf[chosen], self.labels)


@dataclass(frozen=True)
class FeatureSource:
    """Features as a source of batches.

    Attributes:
        features: With labels.
        device: Where the batches go.
    """

    features: Features
    device: torch.device

    @property
    def targets(self) -> Targets:
        """Labels of all samples."""
        return LabelTargets(self.features.labels)

    def batches(
        self, batches: Batches, epoch: int, first: int = 0
    ) -> Iterator[tuple[Rows, Labels]]:
        """Yield (rows, labels) of each batch, in every epoch alike."""
        del epoch
        for batch in batches[first:]:
            yield self.take(batch)

    def take(self, batch: Sequence[int]) -> tuple[Rows, Labels]:
        """Return rows and labels of some samples, on the device."""
        part = self.features.take(batch)
        labels = pytree.tree_map_only(Tensor, lambda leaf: leaf.to(self.device), part.labels)
        return trainable(tuple(tensor.to(self.device) for tensor in part.rows)), labels


def refuse_made_by_another(features: Features, made_by: tuple[About, ...]) -> None:
    """Refuse features that were not made as a trainer would make them now.

    Another machine is none of it: its numbers differ in the last bits.

    Raises:
        WrongFeaturesError: With what differs, in words.
    """
    then, now = ([_without_machine(one) for one in many] for many in (features.made_by, made_by))
    if [one.key for one in then] == [one.key for one in now]:
        return
    vertices = [", ".join(one.vertex for one in many) for many in (then, now)]
    if vertices[0] != vertices[1]:
        raise WrongFeaturesError(differences=(f"frozen up to {vertices[0]}, now {vertices[1]}",))
    lines = [line for pair in zip(now, then, strict=True) for line in differs(*pair)]
    raise WrongFeaturesError(differences=tuple(dict.fromkeys(lines)))


def _without_machine(about: About) -> About:
    kept = ("precision", "chunk")
    arithmetic = {k: v for k, v in about.ingredients["arithmetic"].items() if k in kept}
    ingredients = {**about.ingredients, "arithmetic": arithmetic}
    return replace(about, key=key_of(ingredients), ingredients=ingredients)


def join_labels(parts: Sequence[Labels]) -> Labels:
    """Join the labels of batches, whose forms are equal."""
    if parts[0] is None:
        return None
    return pytree.tree_map(lambda *leaves: torch.cat(leaves), *parts)


def _spelled(labels: Labels, tensors: dict[str, Tensor]) -> Any:
    """Write the form of labels as JSON; their tensors go into `tensors`, under numbers."""
    match labels:
        case None:
            return None
        case Tensor():
            tensors[str(len(tensors))] = labels.contiguous()
            return len(tensors) - 1
        case dict():
            return {"dict": [[k, _spelled(v, tensors)] for k, v in labels.items()]}
        case _:
            kind = "list" if isinstance(labels, list) else "tuple"
            return {kind: [_spelled(one, tensors) for one in labels]}


def _read(spelled: Any, tensors: Mapping[str, Tensor]) -> Labels:
    match spelled:
        case {"dict": items}:
            return {key: _read(value, tensors) for key, value in items}
        case {"list": items}:
            return [_read(one, tensors) for one in items]
        case {"tuple": items}:
            return tuple(_read(one, tensors) for one in items)
        case None:
            return None
        case number:
            return tensors[str(number)]


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return "no such folder"
    names = sorted(child.name for child in path.iterdir()) if path.is_dir() else []
    return ", ".join(names[:8]) or ("an empty folder" if path.is_dir() else "a file")
