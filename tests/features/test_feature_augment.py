"""Noise and dropout on features: drawn by (seed, epoch, batch), the same for kept and live rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from tlcompile.data.targets import TensorTargets
from tlcompile.features.augment import AugmentedSource
from tlcompile.features.prefix import Rows
from tlcompile.features.sources import Batches, chunk_batches


@dataclass(frozen=True)
class Plain:
    """Rows as they are."""

    rows: Rows
    labels: Tensor

    @property
    def targets(self) -> TensorTargets:
        return TensorTargets(self.labels)

    def batches(
        self, batches: Batches, epoch: int, first: int = 0
    ) -> Iterator[tuple[Rows, Tensor]]:
        for batch in batches[first:]:
            yield tuple(tensor[list(batch)] for tensor in self.rows), self.labels[list(batch)]


COUNT = 64
PLAIN = Plain(
    (torch.randn(COUNT, 500, generator=torch.Generator().manual_seed(0)), torch.arange(COUNT)),
    torch.arange(COUNT) % 2,
)
NOISE = AugmentedSource(PLAIN, noise=0.5, dropout=0.0, seed=1)
DROPOUT = AugmentedSource(PLAIN, noise=0.0, dropout=0.25, seed=1)
BOTH = AugmentedSource(PLAIN, noise=0.5, dropout=0.25, seed=1)


def drawn(source: AugmentedSource, epoch: int = 0, size: int = 16) -> Tensor:
    return torch.cat(
        [rows[0] for rows, _ in source.batches(chunk_batches(range(COUNT), size), epoch)]
    )


def test_noise_is_in_deviations_of_the_features() -> None:
    change = drawn(NOISE) - PLAIN.rows[0]
    assert float(change.std()) == pytest.approx(0.5 * float(PLAIN.rows[0].std()), rel=0.02)
    assert abs(float(change.mean())) < 0.02


def test_dropout_sets_a_share_to_0_and_keeps_the_mean() -> None:
    plain, changed = PLAIN.rows[0], drawn(DROPOUT)
    gone = changed == 0
    assert float(gone.float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(changed[~gone], plain[~gone] / 0.75)


@pytest.mark.parametrize("source", [NOISE, DROPOUT, BOTH])
def test_the_draw_is_a_function_of_seed_epoch_and_batch(source: AugmentedSource) -> None:
    first = drawn(source)
    torch.randn(7)  # nobody else's numbers matter
    assert torch.equal(drawn(source), first)
    assert not torch.equal(drawn(source, epoch=1), first)
    assert not torch.equal(drawn(replace(source, seed=2)), first)
    assert not torch.equal(drawn(replace(source, rank=1)), first), "another part of the batch"
    constant = Plain((torch.arange(32.0).repeat(2, 1),), torch.tensor([0, 1]))
    one, other = (
        rows[0] for rows, _ in replace(source, source=constant).batches([[0, 0], [1, 1]], 0)
    )
    assert not torch.equal(one, other), "equal batches, another draw"


def test_what_is_kept_stays_as_it_is() -> None:
    before = PLAIN.rows[0].clone()
    drawn(BOTH)
    assert torch.equal(PLAIN.rows[0], before)


def test_labels_and_whole_numbers_are_not_changed() -> None:
    batches = list(BOTH.batches(chunk_batches(range(COUNT), 16), 0))
    assert torch.equal(torch.cat([rows[1] for rows, _ in batches]), PLAIN.rows[1])
    assert torch.equal(torch.cat([labels for _, labels in batches]), PLAIN.labels)
    assert torch.equal(BOTH.targets.values, PLAIN.labels)


def test_the_batches_behind_the_first_are_drawn_as_if_it_had_been_read() -> None:
    batches = chunk_batches(range(COUNT), 16)
    every = [rows[0] for rows, _ in BOTH.batches(batches, 0)]
    late = [rows[0] for rows, _ in BOTH.batches(batches, 0, 2)]
    assert len(late) == 2
    assert all(torch.equal(a, b) for a, b in zip(late, every[2:], strict=True))


def test_a_single_number_stays_a_number() -> None:
    """Its deviation is 0, not NaN."""
    source = AugmentedSource(Plain((torch.ones(1, 1),), torch.zeros(1)), 0.5, 0.0, seed=1)
    ((rows, _),) = source.batches([[0]], 0)
    assert torch.equal(rows[0], torch.ones(1, 1))
