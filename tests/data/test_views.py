from __future__ import annotations

import hashlib
import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tlcompile.data import augment
from tlcompile.data.augment import Augmentation
from tlcompile.data.digests import digest, digests_of
from tlcompile.data.folder import scan_folder
from tlcompile.data.loading import load_pixels
from tlcompile.data.samples import Samples
from tlcompile.data.views import Views, row_keys
from tlcompile.errors.data import ViewCountError
from tlcompile.recipe.augment import CHANGES
from tlcompile.recipe.image_changes import Change, RandomAffine, RandomRotation
from tlcompile.zoo.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(18, 16, (0.5,) * 3, (0.25,) * 3, "bilinear", 3)
KEY = digest(b"an image")


def changes(*names: str) -> tuple[Change, ...]:
    return tuple(CHANGES[name]() for name in names)


RANDOM = Views(changes("random_resized_crop", "color_jitter"), 16, seed=0, count=3)


def image(number: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(number)
    return torch.randint(256, (3, 20, 30), generator=random).to(torch.uint8)


def shown(views: Views, view: int, key: bytes = KEY) -> Tensor:
    augmentation = views.augmentation(view)
    return augmentation(image(), key) if augmentation else image()


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("horizontal_flip",), [image(), image().flip(-1)]),
        (("vertical_flip",), [image(), image().flip(-2)]),
        (
            ("vertical_flip", "horizontal_flip"),
            [image(), image().flip(-1), image().flip(-2), image().flip(-1, -2)],
        ),
    ],
)
def test_flips_alone_are_exact_views(names: tuple[str, ...], wanted: list[Tensor]) -> None:
    views = Views(changes(*names), 16, seed=5, count=len(wanted))
    for view, pixels in enumerate(wanted):
        assert torch.equal(shown(views, view), pixels)
        assert torch.equal(shown(views, view, digest(b"another")), pixels)
    assert views.augmentation(0) is None
    assert views.tag(0) == ""
    tags = [views.tag(view) for view in range(len(wanted))]
    assert len(set(tags)) == len(wanted)
    other = Views(changes(*names[::-1]), 32, seed=6, count=len(wanted))
    assert [other.tag(view) for view in range(len(wanted))] == tags, "nothing is drawn"


@pytest.mark.parametrize(
    ("names", "count", "wanted"),
    [
        (("horizontal_flip",), 1, 2),
        (("horizontal_flip",), 3, 2),
        (("vertical_flip",), 4, 2),
        (("horizontal_flip", "vertical_flip"), 2, 4),
    ],
)
def test_another_count_of_flips_is_refused_with_two_ways_out(
    names: tuple[str, ...], count: int, wanted: int
) -> None:
    with pytest.raises(ViewCountError, match=f"views: {wanted}") as caught:
        Views(changes(*names), 16, seed=0, count=count)
    assert "cache: off" in str(caught.value)
    assert caught.value.key == ("features", "views")


def test_random_views_are_drawn_by_seed_view_and_bytes() -> None:
    first = [shown(RANDOM, view) for view in range(3)]
    assert all(torch.equal(a, shown(RANDOM, v)) for v, a in enumerate(first))
    assert not any(itertools.starmap(torch.equal, itertools.combinations(first, 2)))
    assert not torch.equal(shown(replace(RANDOM, seed=1), 0), first[0])
    assert not torch.equal(shown(RANDOM, 0, digest(b"another")), first[0])


def test_more_views_leave_the_first_as_they_were() -> None:
    more = replace(RANDOM, count=9)
    for view in range(3):
        assert torch.equal(shown(more, view), shown(RANDOM, view))
        assert more.tag(view) == RANDOM.tag(view)


def test_a_tag_holds_all_that_decides_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    others = [
        replace(RANDOM, changes=RANDOM.changes[::-1]),
        replace(RANDOM, changes=RANDOM.changes[:1]),
        replace(RANDOM, changes=(*RANDOM.changes, RandomRotation())),
        replace(RANDOM, changes=(*RANDOM.changes, RandomRotation(degrees=16))),
        replace(RANDOM, size=17),
        replace(RANDOM, seed=1),
    ]
    tags = [RANDOM.tag(0), RANDOM.tag(1), *(other.tag(0) for other in others)]
    monkeypatch.setattr(augment, "VERSION", augment.VERSION + 1)
    tags.append(RANDOM.tag(0))
    assert len(set(tags)) == 9
    assert "" not in tags


DEFAULTS = """\
random_resized_crop {scale: (0.08, 1.0), ratio: (0.75, 1.3333333333333333), interpolation: bilinear}
random_crop {padding: 0, padding_mode: constant, fill: 0}
horizontal_flip {p: 0.5}
vertical_flip {p: 0.5}
rotation {degrees: 15.0, interpolation: bilinear, fill: None}
affine {degrees: 15.0, translate: None, scale: None, shear: None, interpolation: nearest, fill: 0}
perspective {distortion_scale: 0.5, p: 0.5, interpolation: bilinear, fill: 0}
elastic {alpha: 50.0, sigma: 5.0, interpolation: bilinear, fill: 0}
zoom_out {side_range: (1.0, 4.0), p: 0.5, fill: 0}
color_jitter {brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.0}
photometric_distort {brightness: (0.875, 1.125), contrast: (0.5, 1.5), saturation: (0.5, 1.5),
    hue: (-0.05, 0.05), p: 0.5}
grayscale {p: 0.1}
channel_permutation {}
gaussian_blur {kernel_size: 9, sigma: (0.1, 2.0)}
gaussian_noise {mean: 0.0, sigma: 0.1}
solarize {threshold: 128, p: 0.5}
posterize {bits: 4, p: 0.5}
equalize {p: 0.5}
autocontrast {p: 0.5}
sharpness {sharpness_factor: 2.0, p: 0.5}
invert {p: 0.5}
random_erasing {p: 0.5, scale: (0.02, 0.33), ratio: (0.3, 3.3), value: 0}
trivial_augment {interpolation: nearest, fill: None, num_magnitude_bins: 31}
rand_augment {interpolation: nearest, fill: None, num_ops: 2, magnitude: 9, num_magnitude_bins: 31}
auto_augment {interpolation: nearest, fill: None, policy: imagenet}
augmix {interpolation: bilinear, fill: None, severity: 3, mixture_width: 3,
    chain_depth: None, alpha: 1.0, all_ops: True}"""


def test_a_version_stands_for_these_defaults() -> None:
    """Rows are stored under VERSION and a change's bare name: who changes a default counts it up."""
    affine = {"affine": RandomAffine(degrees=15)}
    found = [
        f"{word} {dict(affine.get(word) or change())}".replace("'", "")
        for word, change in CHANGES.items()
    ]
    assert augment.VERSION == 1
    assert "\n".join(found) == DEFAULTS.replace("\n    ", " ")


def test_row_keys_of_the_image_as_it_is_are_its_digests() -> None:
    digests = np.frombuffer(KEY + digest(b"another"), np.uint8).reshape(2, 32)
    assert np.array_equal(row_keys(digests, ""), digests)
    keys = row_keys(digests, "tag")
    assert keys.dtype == np.uint8
    assert keys[1].tobytes() == hashlib.sha256(digest(b"another") + b"tag").digest()
    every = np.concatenate([digests, keys, row_keys(digests, "other")])
    assert len(np.unique(every, axis=0)) == 6
    assert row_keys(digests[:0], "tag").shape == (0, 32)


# Images that come, go and move


def picture(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image(number).permute(1, 2, 0).numpy()).save(path, format="PNG")


def by_bytes(samples: Samples, augmentations: list[Augmentation | None]) -> dict[bytes, Tensor]:
    """Return what each image looks like in all its views, by the image's own digest."""
    keys = digests_of(samples, workers=0)
    pairs = [(i, view) for i in range(len(samples)) for view in range(len(augmentations))]
    pixels = load_pixels(
        samples, pairs, PREPROCESSING, workers=2, augmentations=augmentations.__getitem__
    )
    stacks = pixels.unflatten(0, (len(samples), len(augmentations)))
    return {key.tobytes(): stack for key, stack in zip(keys, stacks, strict=True)}


@pytest.mark.parametrize("seed", [0, (0, 42)], ids=["views", "live"])
@pytest.mark.parametrize("name", ["random_resized_crop", "rotation", "rand_augment", "augmix"])
def test_adding_renaming_and_moving_images_changes_no_others_draws(
    tmp_path: Path, name: str, seed: int | tuple[int, int]
) -> None:
    for number in range(6):
        picture(tmp_path / "old" / "ab"[number % 2] / f"{number}.png", number)
    draws: list[Augmentation | None] = [
        Augmentation(changes(name), 16, seed, turn) for turn in range(4)
    ]
    before = by_bytes(scan_folder(tmp_path / "old")["all"], draws)
    shutil.move(tmp_path / "old", tmp_path / "new")
    shutil.move(tmp_path / "new" / "a" / "0.png", tmp_path / "new" / "b" / "9.png")
    shutil.move(tmp_path / "new" / "b" / "1.png", tmp_path / "new" / "a" / "zz.png")
    (tmp_path / "new" / "a" / "2.png").unlink()
    picture(tmp_path / "new" / "a" / "00.png", 77)
    after = by_bytes(scan_folder(tmp_path / "new")["all"], draws)
    shared = before.keys() & after.keys()
    assert (len(before), len(after), len(shared)) == (6, 6, 5)
    for key in shared:
        assert torch.equal(before[key], after[key])
    assert any(not torch.equal(stack[0], stack[1]) for stack in before.values())


def test_live_draws_differ_by_every_seed_and_epoch() -> None:
    def live(own: int, run: int, epoch: int) -> Tensor:
        return Augmentation(changes("random_resized_crop"), 16, (own, run), epoch)(image(), KEY)

    draws = [live(0, 0, 0), live(1, 0, 0), live(0, 1, 0), live(0, 0, 1)]
    assert not any(itertools.starmap(torch.equal, itertools.combinations(draws, 2)))
