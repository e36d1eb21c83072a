"""Chunks of one size: padding, order and layout of rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyNet, make_recipe
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe
from tlcompile.features.prefix import Prefix, gather
from tlcompile.features.sources import (
    KeptSource,
    LiveSource,
    chunk_batches,
    compute_rows,
    fits_in_memory,
)
from tlcompile.model.compiled import CompiledModel

CPU = torch.device("cpu")


def tiny_model(upto: str = "bn2") -> CompiledModel:
    recipe = make_recipe(base={"model": "digits_net", "size": 16}, freeze=upto)
    return compile_recipe(recipe, TinyNet(), num_classes=2)


def test_padding_rows_do_not_matter() -> None:
    model, images = tiny_model(), torch.randn(8, 3, 16, 16)
    prefix = Prefix(model, 8, CPU)
    (full,) = prefix(images)
    for count in (1, 3, 7):
        (part,) = prefix(images[:count])
        assert torch.equal(part, full[:count])
    (some,) = prefix(images[[5, 2]])
    assert torch.equal(some, full[[5, 2]])


def test_every_pass_has_the_same_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = tiny_model(), []
    original = CompiledModel.prefix

    def prefix(self: CompiledModel, *inputs: Tensor) -> tuple[Tensor, ...]:
        sizes.append(len(inputs[0]))
        return original(self, *inputs)

    monkeypatch.setattr(CompiledModel, "prefix", prefix)
    (rows,) = Prefix(model, 4, CPU)(torch.randn(11, 3, 16, 16))
    assert sizes == [4, 4, 4]
    assert len(rows) == 11


def test_gather_keeps_the_order_of_dimensions_in_memory() -> None:
    rows = torch.randn(5, 2, 3, 3).to(memory_format=torch.channels_last)
    (some,) = gather((rows,), [4, 0])
    assert torch.equal(some, rows[[4, 0]])
    assert some.is_contiguous(memory_format=torch.channels_last)
    (plain,) = gather((rows.contiguous(),), [4, 0])
    assert plain.is_contiguous()


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    """BatchNorm in train mode refuses a single sample."""
    assert chunk_batches([5, 6, 7, 8, 9], 4) == [[5, 6, 7, 8, 9]]
    assert chunk_batches([5, 6, 7, 8], 3) == [[5, 6, 7, 8]]
    assert chunk_batches([5, 6, 7, 8], 2) == [[5, 6], [7, 8]]
    assert chunk_batches([5, 6, 7], 1) == [[5], [6], [7]]
    assert chunk_batches([5], 4) == [[5]]


def views_of(images: list[Tensor], prefix: Prefix) -> KeptSource:
    kept = compute_rows(
        lambda indices, view: images[view][list(indices)], prefix, 6, views=len(images)
    )
    return KeptSource(kept, torch.arange(6), seed=1)


def test_a_cached_view_is_the_live_augmentation_of_that_view() -> None:
    model, prefix = tiny_model(), Prefix(tiny_model(), 4, CPU)
    prefix = Prefix(model, 4, CPU)
    images = [torch.randn(6, 3, 16, 16) for _ in range(3)]  # what an epoch of augmentation gives
    kept = views_of(images, prefix)
    for view in range(3):
        live = LiveSource(
            lambda indices, epoch: images[epoch][list(indices)], prefix, torch.arange(6)
        )
        ((rows, labels),) = live.batches(range(6), 6, view)
        assert torch.equal(rows[0], kept.rows[view][0])
        assert labels.tolist() == list(range(6))


def test_each_epoch_draws_a_view_for_every_sample() -> None:
    prefix = Prefix(tiny_model(), 4, CPU)
    images = [torch.full((6, 3, 16, 16), float(view)) for view in range(3)]
    kept = views_of(images, prefix)
    seen = {view: kept.rows[view][0][0] for view in range(3)}
    drawn = []
    for epoch in range(20):
        rows = torch.cat([r[0] for r, _ in kept.batches([3, 1, 0, 2, 5, 4], 4, epoch)])
        drawn.append(tuple(next(v for v in seen if torch.equal(row, seen[v])) for row in rows))
    assert len(set(drawn)) > 10
    assert {view for epoch in drawn for view in epoch} == {0, 1, 2}
    again = [torch.cat([r[0] for r, _ in kept.batches([3, 1, 0, 2, 5, 4], 4, 7)])]
    assert torch.equal(again[0][0], seen[drawn[7][0]])


def test_views_of_one_storage_are_copied_apart() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)
            self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.conv(x).chunk(2, dim=1)
            return (self.left(a) + self.right(b)).mean((2, 3))

    recipe = make_recipe(base={"model": "digits_net", "size": 8}, freeze="conv", head="keep")
    model = compile_recipe(recipe, Halves())
    rows = Prefix(model, 4, CPU)(torch.randn(6, 3, 8, 8))
    assert len({tensor.untyped_storage().data_ptr() for tensor in rows}) == len(rows)


def test_memory_is_asked_for() -> None:
    assert fits_in_memory(0, CPU)
    assert not fits_in_memory(2**60, CPU)


def test_what_does_not_fit_runs_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny import make_pictures

    from tlcompile.run import train

    monkeypatch.setattr(train, "fits_in_memory", lambda _bytes, _device: False)
    lines: list[str] = []
    recipe = make_recipe(
        base={"model": "digits_net", "size": 16},
        data=str(make_pictures(tmp_path / "data")),
        fine_tune={"epochs": 1},
    )
    train.train_recipe(recipe, tmp_path / "run", base=TinyNet(), say=lines.append)
    assert any("do not fit in memory, run live" in line for line in lines)
