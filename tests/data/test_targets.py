from __future__ import annotations

import torch

from tlcompile.data.samples import Samples
from tlcompile.data.targets import TensorTargets


def test_rows_come_in_the_order_of_the_pairs_whatever_the_view() -> None:
    targets = TensorTargets(torch.tensor([5, 6, 7]))
    assert len(targets) == 3
    assert torch.equal(targets.take([(2, 9), (0, 1), (2, 0)]), torch.tensor([7, 5, 7]))


def test_several_outputs_give_a_dict() -> None:
    targets = TensorTargets({"a": torch.tensor([1, 2]), "b": torch.tensor([[0.5], [1.5]])})
    assert len(targets) == 2
    taken = targets.take([(1, 0)])
    assert isinstance(taken, dict)
    assert torch.equal(taken["a"], torch.tensor([2]))
    assert torch.equal(taken["b"], torch.tensor([[1.5]]))


def test_samples_give_class_indices_unless_they_have_values() -> None:
    samples = Samples(("x", "y"), (1, 0), ("a", "b"), lambda i: b"", lambda i, d: torch.zeros(1))
    taken = samples.targets().take([(0, 0), (1, 0)])
    assert torch.equal(taken, torch.tensor([1, 0]))
    assert taken.dtype == torch.int64
