"""Read batches as loaders give them, whatever their size. Knows nothing of what they are for.

A batch is the model's inputs, or (inputs, labels). Inputs are a tensor; for a model with several, a
tuple or a dictionary of them, or one after the other: [a, b] or [a, b, labels].
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from tlcompile.errors.base import listed
from tlcompile.errors.fitting import EmptyLoaderError, WrongArgumentError, WrongBatchError
from tlcompile.model.compiled import Summary

Inputs = tuple[Tensor, ...]
Labels = Any  # a tensor; or dictionaries, tuples and lists of tensors; None: there are none

_WANTED = {
    1: "inputs, or (inputs, labels)",
    2: "(one, other), ((one, other), labels) or (one, other, labels)",
}


@dataclass(frozen=True)
class Reader:
    """Reads batches for one model.

    Attributes:
        shapes: Of one sample of each input, by its name.
        dtypes: Of inputs that are not float32, in torch's words.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    @classmethod
    def of(cls, summary: Summary) -> Reader:
        """Read batches for a compiled model."""
        return cls(summary.sample_shapes, summary.dtypes)

    def __call__(self, data: Any) -> Iterator[tuple[Inputs, Labels]]:
        """Yield (inputs, labels) of each batch that has samples, checked.

        Args:
            data: A loader: any iterable of batches. A tensor, a tuple or a dictionary is one batch.

        Raises:
            EmptyLoaderError: There is no sample.
            WrongBatchError: A batch does not fit the model, or the others.
        """
        first: Labels = None
        count = 0
        for number, batch in enumerate(_batches(data), 1):
            inputs, labels = self._split(number, batch)
            self._check(number, inputs)
            _check_labels(number, labels, len(inputs[0]))
            first = labels if number == 1 else first
            if form_of(labels) != form_of(first):
                found, wanted = f"labels {shown(labels)}", f"as in the first: {shown(first)}"
                raise _wrong(number, found, wanted, "give labels of one form in every batch")
            if len(inputs[0]):
                count += len(inputs[0])
                yield inputs, labels
        if not count:
            kind = type(data).__name__
            raise EmptyLoaderError(kind=kind, once=isinstance(data, Iterator))

    def _split(self, number: int, batch: Any) -> tuple[Inputs, Labels]:
        names, count = list(self.shapes), len(self.shapes)
        inputs, labels = batch, None
        if isinstance(batch, list | tuple):
            if len(batch) == 2 and isinstance(batch[0], list | tuple | dict):
                inputs, labels = batch
            elif len(batch) == count + 1:
                inputs, labels = batch[:count], batch[count]
        if isinstance(inputs, Mapping):
            if set(inputs) != set(names):
                advice = "name them as the model does, or give (inputs, labels)"
                raise _wrong(number, shown(batch), f"inputs {listed(names)}", advice)
            inputs = [inputs[name] for name in names]
        tensors = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
        if len(tensors) != count or not all(isinstance(one, Tensor) for one in tensors):
            advice = "give tensors in that form; several labels go together: (inputs, (one, other))"
            wanted = f"{_WANTED[min(count, 2)]}; inputs are {listed(names)}"
            raise _wrong(number, shown(batch), wanted, advice)
        return tensors, labels

    def _check(self, number: int, inputs: Inputs) -> None:
        for name, tensor in zip(self.shapes, inputs, strict=True):
            shape, dtype = tuple(self.shapes[name]), self.dtypes.get(name, "float32")
            wanted = f"{name}: {dtype} (N, {', '.join(map(str, shape))})"
            if tensor.dim() == 0 or tuple(tensor.shape[1:]) != shape:
                advice = f"bring it to that shape: {name}.reshape(-1, {', '.join(map(str, shape))})"
                if tuple(tensor.shape) == shape:
                    advice = "give batches: DataLoader(dataset, batch_size=32)"
                elif len(shape) == 3:
                    advice = "resize and crop the images, or compile with base.size"
                raise _wrong(number, f"{name}: {shown(tensor)}", wanted, advice)
            if tensor.dtype != getattr(torch, dtype):
                advice = f"convert it: {name}.to(torch.{dtype}); images are normalised floats"
                raise _wrong(number, f"{name}: {shown(tensor)}", wanted, advice)
            if len(tensor) != len(inputs[0]):
                found, wanted = f"{name}: {len(tensor)} samples", f"{len(inputs[0])} samples"
                raise _wrong(number, found, wanted, "give as many samples of every input")


def _batches(data: Any) -> Iterable[Any]:
    if isinstance(data, Tensor | tuple | dict):
        return [data]
    try:
        batches: Iterator[Any] = iter(data)
    except TypeError as error:
        raise WrongArgumentError(
            name="loader",
            found=type(data).__name__,
            wanted="an iterable of batches, or one batch",
            advice="give a DataLoader, a list of batches, or a tensor",
        ) from error
    return batches


def _check_labels(number: int, labels: Labels, count: int) -> None:
    if labels is None:
        return
    leaves = pytree.tree_leaves(labels)
    if not leaves or not all(isinstance(leaf, Tensor) for leaf in leaves):
        advice = "convert them: torch.tensor(labels)"
        raise _wrong(number, f"labels {shown(labels)}", "labels that are tensors", advice)
    for leaf in leaves:
        if leaf.dim() == 0 or len(leaf) != count:
            found, wanted = f"labels {shown(labels)}", f"labels for {count} samples"
            raise _wrong(number, found, wanted, "give one label a sample")


def _wrong(number: int, found: str, wanted: str, advice: str) -> WrongBatchError:
    return WrongBatchError(number=number, found=found, wanted=wanted, advice=advice)


def shown(value: Any) -> str:
    """Show what a batch holds: kinds and shapes, no numbers."""
    match value:
        case Tensor():
            return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        case dict():
            return "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return f"({listed([shown(one) for one in value])})"
        case _:
            return type(value).__name__


def form_of(labels: Labels) -> object:
    """Return what labels have to share in order to be joined."""
    leaves, tree = pytree.tree_flatten(labels)
    return tree, [(leaf.dtype, leaf.shape[1:]) for leaf in leaves if leaf is not None]


def cut(batches: Iterable[Inputs], size: int) -> Iterator[Inputs]:
    """Cut batches anew, into `size` samples each; the last may have fewer."""
    waiting: list[Inputs] = []
    count = 0
    for batch in batches:
        start = 0
        while len(batch[0]) - start >= size - count:
            end = start + size - count
            yield _joined([*waiting, tuple(tensor[start:end] for tensor in batch)])
            waiting, count, start = [], 0, end
        if start < len(batch[0]):
            waiting.append(tuple(tensor[start:] for tensor in batch))
            count += len(batch[0]) - start
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[Inputs]) -> Inputs:
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
