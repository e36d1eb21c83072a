"""Every torchvision model that reads one tensor: training on stored rows is live training, to the bit."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from durable_disks import do_not_wait
from phase_trainers import epochs_of, own_loss, phase_trainer, plain_sgd
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from parity.plain import (
    CLASSIFIERS,
    SEGMENTATION,
    VIDEO,
    compiled_at,
    leaves,
    plain_model,
    shape_of,
)
from parity.test_all_models import point_of, stages_of
from tlcompile.data.loading import Pair
from tlcompile.data.targets import TensorTargets
from tlcompile.features.extract import extract
from tlcompile.features.fingerprint import describe
from tlcompile.features.layout import memory_order
from tlcompile.features.pass_size import pass_size
from tlcompile.features.prefix import Loader, Prefix
from tlcompile.features.sources import InStore, KeptSource, LiveSource, Source
from tlcompile.model.compiled import CompiledModel
from tlcompile.store.store import FeatureSet, Keys, Store
from tlcompile.training.optim import Given
from tlcompile.training.state import EpochRow

NAMES = [*CLASSIFIERS, *SEGMENTATION, *VIDEO]
QUICK = ["shufflenet_v2_x0_5", "squeezenet1_0"]
SAMPLES, CHUNK, BATCH, EPOCHS = 6, 4, 3, 2  # a short last chunk; no batch is one
CLASSES = 7
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_wait(monkeypatch)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """With many threads a pass has hundreds of images: see features/pass_size.py."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES if n not in QUICK)]
)
def test_training_on_stored_rows_is_live_training(
    tmp_path: Path, record_property: Callable[[str, str], None], name: str
) -> None:
    stages = stages_of(name)
    sets = check(tmp_path, name, point_of(name, stages[len(stages) // 2]))
    record_property("stored", told(sets))


@pytest.mark.slow
def test_three_threads_share_unevenly(tmp_path: Path) -> None:
    torch.set_num_threads(3)  # rows of a pass of 32 depend on their place
    check(tmp_path, "efficientnet_b0", "stage3")


# Between stages several tensors are alive. How many, and how many of them lie permuted:
BETWEEN = {
    "lraspp_mobilenet_v3_large": ("head", 2, 0),
    "shufflenet_v2_x0_5": ("stage3.0.branch1", 2, 0),
    "densenet121": ("features.denseblock3.denselayer3", 4, 0),
    "vit_b_32": ("encoder.layers.encoder_layer_5.ln_1", 2, 0),
    "swin_t": ("features.3.0.norm1", 2, 0),
    "convnext_tiny": ("features.3.1.block.0", 2, 1),
}


@pytest.mark.parametrize(
    "name", [n if n in QUICK[:1] else pytest.param(n, marks=pytest.mark.slow) for n in BETWEEN]
)
def test_several_tensors_cross(
    tmp_path: Path, record_property: Callable[[str, str], None], name: str
) -> None:
    point, crossing, permuted = BETWEEN[name]
    sets = check(tmp_path, name, point)
    assert len(sets) == crossing
    assert sum(not one.gather([0, 1]).is_contiguous() for one in sets) == permuted
    record_property("stored", told(sets))


def check(root: Path, name: str, point: str | dict[str, int]) -> list[FeatureSet]:
    """Train live and on stored rows from the same start; compare losses and tensors to the bit."""
    head = "auto" if name in CLASSIFIERS else "keep"
    model = compiled_at(name, plain_model(name), point, head=head, classes=CLASSES)
    state, frozen = model.state_dict(), model.frozen.tensors
    start = {key: tensor.clone() for key, tensor in state.items() if key not in frozen}
    samples = torch.randn(SAMPLES, *shape_of(name), generator=torch.Generator().manual_seed(2))
    labels = torch.arange(SAMPLES) % CLASSES
    prefix = Prefix(model, pass_size(model, CHUNK, CPU), CPU)

    def load(pairs: Sequence[Pair]) -> Tensor:
        return samples[[sample for sample, _view in pairs]]

    live = LiveSource(load, prefix, TensorTargets(labels))
    trained_live = outcome(model, live)
    model.load_state_dict(start, strict=False)
    keys = keys_of(samples)
    sets = stored(root, prefix, load, keys)
    faults = misplaced(prefix, samples, sets, keys)
    kept = KeptSource(InStore(sets, [one.locate(keys) for one in sets], CPU), TensorTargets(labels))
    faults += unequal(trained_live, outcome(model, kept))
    if faults:
        model.load_state_dict(start, strict=False)
        if itself := unequal(trained_live, outcome(model, live)):
            pytest.skip(f"{name} trained live twice is not equal to itself: {itself[:3]}")
    assert not faults
    assert any(not torch.equal(state[key], tensor) for key, tensor in start.items())
    gc.collect()
    return sets


def keys_of(samples: Tensor) -> Keys:
    digests = [hashlib.sha256(sample.numpy().tobytes()).digest() for sample in samples]
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)


def stored(root: Path, prefix: Prefix, load: Loader, keys: Keys) -> list[FeatureSet]:
    """Store the rows of some samples, then of all, and open them as the next run would."""
    size = prefix.chunk_size
    abouts = describe(
        prefix.model, preprocessing=None, chunk_size=size, precision="exact", device=CPU
    )
    for wanted in (keys[:-1], keys):
        sets = [Store(root).open(about) for about in abouts]
        extract(sets, wanted, load, prefix, chunk_size=size)
    sets = [Store(root).open(about) for about in abouts]
    for one, about in zip(sets, abouts, strict=True):
        assert (one.locate(keys) < 0).all(), "nothing is known before the disk is read"
        assert one.refresh()
        assert (one.locate(keys) >= 0).all()
        (on_disk,) = (found for found in Store(root).sets() if found.about.key == about.key)
        assert on_disk.rows == SAMPLES
        assert on_disk.blocks >= 2, "a slow machine commits every few seconds"
    return sets


def misplaced(prefix: Prefix, samples: Tensor, sets: Sequence[FeatureSet], keys: Keys) -> list[str]:
    """Name stored rows that differ from live ones in their values, or in where these lie."""
    raw = prefix.model.prefix(samples)
    faults = []
    for one, computed, live in zip(sets, raw, prefix(samples), strict=True):
        rows = one.gather(one.locate(keys))
        if not torch.equal(rows, live):
            faults.append(f"rows of {one.about.vertex}")
        if rows.stride() != live.stride() or memory_order(rows) != memory_order(computed):
            faults.append(f"strides of {one.about.vertex}: {rows.stride()}, not {live.stride()}")
    return faults


def told(sets: Sequence[FeatureSet]) -> str:
    """Return what crosses the freeze point, in one line."""
    parts = [
        f"{one.about.vertex} {one.about.shape}"
        f"{'' if one.gather([0, 1]).is_contiguous() else ' permuted'}"
        for one in sets
    ]
    return f"{len(sets)} sets, {sum(s.row_bytes for s in sets):,} bytes a row: {', '.join(parts)}"


def outcome(model: CompiledModel, source: Source) -> tuple[list[EpochRow], dict[str, str]]:
    """Train from rows; return the epochs, and a digest of every tensor: two states are gigabytes."""
    torch.manual_seed(9)  # what was drawn before never matters, and here it is the same
    trainer = phase_trainer(
        model,
        source,
        source,
        objective=own_loss(of_every_output),
        optimizers=Given(plain_sgd(model, lr=1e-3, momentum=0.9)),
        epochs=EPOCHS,
        batch_size=BATCH,
        seed=5,
    )
    history = [row for row, _best in epochs_of(trainer)]
    state = model.state_dict().items()
    return history, {k: hashlib.sha256(t.contiguous().numpy()).hexdigest() for k, t in state}


def of_every_output(outputs: object, labels: Tensor) -> Tensor:
    """Return the cross-entropy of all outputs, auxiliary ones too, at every pixel."""
    losses = [
        F.cross_entropy(leaf, labels.view(-1, *[1] * (leaf.dim() - 2)).expand(-1, *leaf.shape[2:]))
        for leaf in leaves(outputs)
    ]
    return torch.stack(losses).sum()


def unequal(
    one: tuple[list[EpochRow], dict[str, str]], other: tuple[list[EpochRow], dict[str, str]]
) -> list[str]:
    """Name the epochs and the tensors in which two trainings differ."""
    epochs = [
        f"epoch {a.epoch}: {a.train} and {b.train}, {a.val} and {b.val}"
        for a, b in zip(one[0], other[0], strict=True)
        if (a.train, a.val) != (b.train, b.val)
    ]
    assert one[1].keys() == other[1].keys()
    return [*epochs, *(key for key, digest in one[1].items() if digest != other[1][key])]
