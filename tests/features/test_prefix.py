"""Chunks of one size: padding, order and layout of rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tiny import TinyNet, make_recipe
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe
from tlcompile.data.targets import TensorTargets
from tlcompile.errors.graph import MixedSamplesError
from tlcompile.features.prefix import Loader, Prefix, gather
from tlcompile.features.sources import (
    InMemory,
    KeptSource,
    LiveSource,
    chunk_batches,
    compute_rows,
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
    assert sizes == [2, 2, 4, 4, 4], "two for the proof that images are not mixed"
    assert len(rows) == 11


def _mixing(freeze: str, mixed: Callable[[Tensor], Tensor]) -> CompiledModel:
    class Mixing(TinyNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.bn2(self.conv2(mixed(self.conv1(x))))
            return self.fc(self.flatten(self.pool(x)))

    recipe = make_recipe(base={"model": "digits_net", "size": 16}, freeze=freeze)
    return compile_recipe(recipe, Mixing(), num_classes=2)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x: x - x.mean(0, keepdim=True),
        lambda x: x.softmax(0),
        lambda x: x.flip(0),
        lambda x: x.permute(1, 0, 2, 3).reshape(x.shape),
    ],
    ids=["mean", "softmax", "flip", "reshape"],
)
def test_a_frozen_part_that_mixes_images_is_refused(mixed: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(MixedSamplesError):
        Prefix(_mixing("bn2", mixed), 4, CPU)(torch.randn(5, 3, 16, 16))


def test_a_context_of_the_caller_does_not_change_exact_rows() -> None:
    prefix, images = Prefix(tiny_model(), 4, CPU), torch.randn(5, 3, 16, 16)
    (plain,) = prefix(images)
    with torch.autocast("cpu", torch.bfloat16):
        (under,) = prefix(images)
    assert torch.equal(under, plain)


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


def images_of(images: list[Tensor]) -> Loader:
    """Load the images of views that are written down."""
    return lambda pairs: torch.stack([images[view][sample] for sample, view in pairs])


def views_of(images: list[Tensor], prefix: Prefix) -> KeptSource:
    views = len(images)
    rows = compute_rows(images_of(images), prefix, 6, views=views)
    return KeptSource(InMemory(rows), TensorTargets(torch.arange(6)), views, seed=1)


def row_of(kept: KeptSource, sample: int, view: int) -> Tensor:
    return kept.rows.gather(np.array([sample * kept.views + view]))[0]


def test_a_cached_view_is_the_live_augmentation_of_that_view() -> None:
    prefix = Prefix(tiny_model(), 4, CPU)
    images = [torch.randn(6, 3, 16, 16) for _ in range(3)]  # what an epoch of augmentation gives
    kept = views_of(images, prefix)
    for view in range(3):
        live = LiveSource(images_of(images), prefix, TensorTargets(torch.arange(6)))
        ((rows, labels),) = live.batches([range(6)], view)
        assert torch.equal(rows[0], torch.cat([row_of(kept, i, view) for i in range(6)]))
        assert labels.tolist() == list(range(6))


def test_each_epoch_draws_a_view_for_every_sample() -> None:
    prefix = Prefix(tiny_model(), 4, CPU)
    images = [torch.full((6, 3, 16, 16), float(view)) for view in range(3)]
    kept = views_of(images, prefix)
    seen = {view: row_of(kept, 0, view)[0] for view in range(3)}
    drawn = []
    for epoch in range(20):
        rows = torch.cat([r[0] for r, _ in kept.batches([[3, 1, 0, 2], [5, 4]], epoch)])
        drawn.append(tuple(next(v for v in seen if torch.equal(row, seen[v])) for row in rows))
    assert len(set(drawn)) > 10
    assert {view for epoch in drawn for view in epoch} == {0, 1, 2}
    again = [torch.cat([r[0] for r, _ in kept.batches([[3, 1, 0, 2], [5, 4]], 7)])]
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
