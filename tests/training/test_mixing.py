from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from tlcompile.training.mixing import Mixing

CLASSES = 4


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 8, 10, generator=torch.Generator().manual_seed(1))


def labels(count: int = 6) -> Tensor:
    return torch.arange(count) % CLASSES


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_it_is_torchvisions_under_one_seed(kind: str, alpha: float) -> None:
    theirs = (v2.MixUp if kind == "mixup" else v2.CutMix)(alpha=alpha, num_classes=CLASSES)
    ours = Mixing(**{kind: alpha}, num_classes=CLASSES)
    with torch.random.fork_rng():
        for seed in range(10):
            torch.manual_seed(seed)
            wanted = theirs(images(), labels())
            (rows,), targets = ours((images(),), labels(), seeded(seed))
            assert torch.equal(rows, wanted[0])
            assert torch.equal(targets, wanted[1])


@pytest.mark.parametrize("mixing", [Mixing(0.4), Mixing(None, 1.0), Mixing(0.4, 1.0)])
def test_it_is_a_function_of_the_generator_alone(mixing: Mixing) -> None:
    def run(seed: int) -> Tensor:
        (rows,), targets = mixing((images(),), labels(), seeded(seed))
        return torch.cat([rows.flatten(), targets])

    before = torch.get_rng_state()
    found = [run(seed) for seed in range(8)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert all(torch.equal(run(seed), one) for seed, one in enumerate(found))
    assert not any(torch.equal(one, found[0]) for one in found[1:])
    torch.set_rng_state(before)


def test_of_both_one_is_drawn_for_each_batch() -> None:
    """A blend has no pixel of the image itself; a cut has nothing else but pixels of the two."""
    cuts = 0
    for seed in range(60):
        (rows,), _ = Mixing(1.0, 1.0, CLASSES)((images(),), labels(), seeded(seed))
        whole = (rows == images()) | (rows == images().roll(1, 0))
        cuts += int(whole.all())
    assert 15 < cuts < 45


def test_what_is_given_stays_as_it_is() -> None:
    rows, targets = images(), torch.randn(6, 2)
    was = rows.clone(), targets.clone()
    Mixing(0.4, 1.0)((rows,), targets, seeded())
    assert torch.equal(rows, was[0])
    assert torch.equal(targets, was[1])


def share_of(mixing: Mixing, seed: int = 0) -> float:
    """Return the share that a mixing drew: what is left of a one among zeros."""
    one = torch.eye(6)
    _, targets = mixing((images(),), one, seeded(seed))
    return float(targets[0, 0])


def test_class_indices_become_shares_that_add_up_to_one() -> None:
    mixing = Mixing(1.0, num_classes=CLASSES)
    _, targets = mixing((images(),), labels(), seeded())
    share = share_of(mixing)
    assert targets.shape == (6, CLASSES)
    assert 0 < share < 1
    assert torch.allclose(targets.sum(1), torch.ones(6))
    assert targets[1].tolist() == pytest.approx([1 - share, share, 0, 0])


@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([0, 1, 1, 0, 1, 0]),  # binary
        torch.tensor([[0.0, 1.0], [1.0, 1.0]] * 3),  # multilabel
        torch.tensor([[3.5], [-1.0], [200.0], [0.0], [1.0], [7.0]]),  # regression
    ],
)
@pytest.mark.parametrize("mixing", [Mixing(0.7), Mixing(None, 1.0)])
def test_numbers_are_mixed_as_they_are(mixing: Mixing, targets: Tensor) -> None:
    _, found = mixing((images(),), targets, seeded(3))
    share, numbers = share_of(mixing, 3), targets.float()
    assert found.dtype == torch.float32
    assert torch.allclose(found, share * numbers + (1 - share) * numbers.roll(1, 0))


def test_every_output_is_mixed_by_one_share() -> None:
    counts = {"kind": CLASSES, "age": None}
    targets: Any = {"kind": labels(), "age": torch.arange(6.0)}
    _, found = Mixing(1.0, num_classes=counts)((images(),), targets, seeded())
    for name, count in counts.items():
        _, wanted = Mixing(1.0, num_classes=count)((images(),), targets[name], seeded())
        assert torch.equal(found[name], wanted)


def test_all_rows_of_features_are_mixed_by_one_share_and_whole_numbers_are_not() -> None:
    rows = (torch.randn(6, 5), torch.randn(6, 2, 3, 3), torch.arange(6))
    found, _ = Mixing(1.0, num_classes=CLASSES)(rows, labels(), seeded())
    share = share_of(Mixing(1.0))
    for one, mixed in zip(rows[:2], found[:2], strict=True):
        assert torch.allclose(mixed, share * one + (1 - share) * one.roll(1, 0))
    assert torch.equal(found[2], rows[2])


def test_a_cut_takes_the_rectangle_that_its_share_says() -> None:
    shown = torch.zeros(2, 1, 8, 10)
    shown[1] = 1
    for seed in range(20):
        (rows,), targets = Mixing(None, 1.0)((shown,), torch.tensor([0.0, 1.0]), seeded(seed))
        assert float(rows[0].mean()) == pytest.approx(float(targets[0]))


def test_a_batch_of_one_is_mixed_with_itself() -> None:
    (rows,), targets = Mixing(0.4, num_classes=CLASSES)((images(1),), labels(1), seeded())
    assert torch.allclose(rows, images(1))
    assert targets.tolist() == [pytest.approx([1, 0, 0, 0])]


def test_small_alphas_mix_little() -> None:
    def mixed(alpha: float) -> float:
        shares = [share_of(Mixing(alpha), seed) for seed in range(40)]
        return sum(min(share, 1 - share) for share in shares) / 40

    assert mixed(0.1) < mixed(1.0) < mixed(20.0)
