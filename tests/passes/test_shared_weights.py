"""A module that is called twice has one set of weights: no edit changes them behind a kept vertex."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from tiny import TinyNet, make_recipe
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.errors.base import TLCompileError

BASE = {"model": "own", "size": 8}


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(192, 16)
        self.fc = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.fc(self.stem(x.flatten(1))).relu())


class Tied(Twice):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.stem(x.flatten(1)) @ self.fc.weight)


NEW = {"layer": "linear", "out": 16}


@pytest.mark.parametrize(
    ("module", "sections", "slug"),
    [
        (Twice, {"head": "auto"}, "head"),
        (Tied, {"head": "auto"}, "head"),
        (Twice, {"remove": {"fc": "replace"}, "add": {"fc": NEW}}, "name-taken"),
        (Tied, {"remove": {"fc": "replace"}, "add": {"fc": NEW}}, "name-taken"),
    ],
)
def test_weights_that_a_kept_vertex_uses_are_not_replaced(
    module: type[nn.Module], sections: dict[str, object], slug: str
) -> None:
    recipe = make_recipe(base=BASE, **{"head": "keep", "freeze": "none", **sections})
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(recipe, base=module(), num_classes=3)
    assert caught.value.slug == slug


def test_both_calls_or_the_second_alone_are_replaced() -> None:
    edits = {"fc_1": NEW}, {"fc": {**NEW, "inputs": "stem"}, "fc_1": NEW}
    for add in edits:
        remove = dict.fromkeys(add, "replace")
        recipe = make_recipe(base=BASE, head="keep", freeze="none", remove=remove, add=add)
        model = compile_recipe(recipe, base=Twice(), num_classes=3)
        assert model(torch.randn(2, 3, 8, 8)).shape == (2, 16)


def test_an_initialiser_of_what_head_auto_replaces_is_refused() -> None:
    resize = {"classifier.3": {"out": 100, "fan_out_init": "zeros"}}
    recipe = make_recipe(base={"model": "vgg11", "weights": "none"}, freeze="none", resize=resize)
    with pytest.raises(TLCompileError) as caught:
        prove_recipe(recipe)
    assert caught.value.slug == "no-effect"


class Chunked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.conv(x).chunk(2, 1)
        return self.fc(torch.cat([other, one], 1).mean((2, 3)))


def test_the_channels_of_a_chunk_are_not_known() -> None:
    resize = {"conv": {"out": 8, "overlap": True}}
    recipe = make_recipe(base=BASE, head="keep", freeze="none", resize=resize)
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(recipe, base=Chunked())
    assert caught.value.slug == "overlap-unknown"


class Metadata(nn.Module):
    """Cannot be traced, and speaks of metadata where the width is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, metadata: Tensor) -> Tensor:
        if int(metadata.shape[1]) != 6:
            raise ValueError(f"metadata has {metadata.shape[1]} features, not 6")
        return self.linear(metadata)


def test_a_misfit_that_speaks_of_metadata_is_a_misfit() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), Metadata(), nn.Linear(6, 5))
    recipe = make_recipe(
        base=BASE,
        head="keep",
        freeze="none",
        remove={"1": "replace"},
        add={"1": {"layer": "linear", "out": 9}},
    )
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(recipe, base=module)
    assert caught.value.slug == "shape-mismatch"


def test_no_generator_but_the_cpu_s_is_seeded() -> None:
    with mock.patch("torch.cuda.manual_seed_all") as seeded:
        compile_recipe(make_recipe(base=BASE), base=TinyNet(), num_classes=3)
        compile_recipe(make_recipe(), num_classes=3)
    seeded.assert_not_called()
