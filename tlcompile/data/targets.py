"""What the outputs for a batch of samples are compared with. Tensors here; masks stay files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Pair = tuple[int, int]  # a sample, and its view or epoch


class Targets(Protocol):
    """What the outputs for each sample of one split are compared with."""

    def __len__(self) -> int:
        """Return the number of samples."""
        ...

    def take(self, pairs: Sequence[Pair]) -> Tensor | dict[str, Tensor]:
        """Return the targets of one batch, in the order of its pairs.

        Args:
            pairs: Sample and view, or epoch: a mask is changed as its image is in that view.

        Returns:
            A dict by output where the model has several.

        Shape:
            out: (N, ...)
        """
        ...


@dataclass(frozen=True)
class TensorTargets:
    """Targets that a view does not change.

    Args:
        values: (N, ...), or one such tensor an output.
    """

    values: Tensor | Mapping[str, Tensor]

    def __len__(self) -> int:
        values = self.values
        return len(values if isinstance(values, Tensor) else next(iter(values.values())))

    def take(self, pairs: Sequence[Pair]) -> Tensor | dict[str, Tensor]:
        """Return the targets of these samples; their views say nothing."""
        chosen = [sample for sample, _ in pairs]
        if isinstance(self.values, Tensor):
            return self.values[chosen]
        return {name: values[chosen] for name, values in self.values.items()}
