from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlcompile.data.digests import digest
from tlcompile.data.masks import (
    MaskTargets,
    fitted,
    named_classes,
    read_mask,
    scan_masks,
    with_mask_classes,
)
from tlcompile.data.samples import Samples
from tlcompile.errors.base import Problems
from tlcompile.errors.data import MissingFolderError, NoImagesError
from tlcompile.errors.tables import BadMaskError, MissingMaskError
from tlcompile.recipe.tasks import IGNORED
from tlcompile.zoo.preprocessing import Preprocessing

AS_IT_IS = Preprocessing(None, None, (0.0,) * 3, (1.0,) * 3, "bilinear", 3)


def put(root: Path, name: str, values: np.ndarray, mode: str = "L", folder: str = "masks") -> None:
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), "L" if mode == "P" else None)
    if mode == "P":
        image.putpalette([n * 7 % 256 for n in range(768)])
    image.save(path)


def pair(root: Path, name: str, values: np.ndarray, mode: str = "L") -> None:
    """Write a mask, and an image whose red channel is the mask."""
    put(root, f"{name}.png", values, mode)
    red = np.stack([values, values * 0, values * 0], axis=-1)
    put(root, f"{name}.bmp", red, folder="images")


def blocks() -> np.ndarray:
    """Classes 0 to 3 in the corners of 8 x 8."""
    return np.array([[0, 1], [2, 3]]).repeat(4, 0).repeat(4, 1)


def test_masks_stand_beside_their_images(tmp_path: Path) -> None:
    pair(tmp_path, "a", blocks())
    pair(tmp_path, "deep/b", blocks(), "P")
    found = scan_masks(str(tmp_path), 3)
    assert list(found) == ["all"]
    named = with_mask_classes(found, None, workers=2)["all"]
    assert named.classes == ("0", "1", "2", "3")
    assert [Path(mask).name for mask in named.masks] == ["a.png", "b.png"]
    assert named.labels == ()
    assert named.subset([1]).masks == (named.masks[1],)


def test_splits_of_masks(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        pair(tmp_path / split, split, blocks())
    found = scan_masks(str(tmp_path), 3)
    assert list(found) == ["train", "val", "test"]
    assert found["val"].masks[0].endswith("val/masks/val.png")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_values_of_grey_and_of_a_palette_are_the_classes(tmp_path: Path, mode: str) -> None:
    values = np.array([[0, 1, 20], [255, 7, 0]])
    put(tmp_path, "m.png", values, mode)
    assert torch.equal(read_mask(str(tmp_path / "masks/m.png")).long(), torch.from_numpy(values))


def test_ignored_pixels_make_no_class(tmp_path: Path) -> None:
    pair(tmp_path, "a", np.array([[0, 1], [IGNORED, 1]]))
    assert with_mask_classes(scan_masks(str(tmp_path), 3), None, 0)["all"].classes == ("0", "1")


def test_classes_are_named_in_a_file(tmp_path: Path) -> None:
    assert named_classes(str(tmp_path)) is None
    (tmp_path / "classes.txt").write_text("sky\n\nroad \n")
    assert named_classes(str(tmp_path)) == ("sky", "road")


def test_all_bad_masks_are_named_at_once(tmp_path: Path) -> None:
    pair(tmp_path, "a", blocks())
    pair(tmp_path, "b", np.array([[0, 1]]))
    put(tmp_path, "b.bmp", np.zeros((3, 3, 3)), folder="images")
    pair(tmp_path, "c", blocks())
    put(tmp_path, "c.png", np.zeros((8, 8, 3)))
    pair(tmp_path, "d", blocks())
    (tmp_path / "masks" / "d.png").write_bytes(b"no image")
    with pytest.raises(BadMaskError) as caught:
        with_mask_classes(scan_masks(str(tmp_path), 3), ("sky", "road", "tree"), 0)
    reasons = dict(caught.value.masks)
    assert [Path(path).stem for path in reasons] == ["a", "b", "c", "d"]
    assert [reason.split(",")[0] for reason in list(reasons.values())[:3]] == [
        "value 3",
        "2 x 1 pixels",
        "pixels of mode 'RGB'",
    ]


def test_images_and_masks_without_each_other(tmp_path: Path) -> None:
    pair(tmp_path, "a", blocks())
    put(tmp_path, "b.bmp", np.zeros((2, 2, 3)), folder="images")
    with pytest.raises(MissingMaskError, match="1 image has no mask"):
        scan_masks(str(tmp_path), 3)
    put(tmp_path, "b.png", np.zeros((2, 2)))
    put(tmp_path, "c.png", np.zeros((2, 2)))
    with pytest.raises(MissingMaskError, match=r"1 mask in .* has no image"):
        scan_masks(str(tmp_path), 3)


def test_a_missing_mask_hides_no_bad_ones(tmp_path: Path) -> None:
    pair(tmp_path, "a", blocks())
    put(tmp_path, "a.png", np.zeros((1, 2)))  # of another size
    put(tmp_path, "b.png", np.zeros((2, 2, 3)), folder="images")
    with pytest.raises(Problems) as caught:
        scan_masks(str(tmp_path), 3)
    missing, bad = caught.value.errors
    assert isinstance(missing, MissingMaskError)
    assert isinstance(bad, BadMaskError)
    assert [Path(path).stem for path, _why in bad.masks] == ["a"]


def test_two_images_cannot_share_a_mask(tmp_path: Path) -> None:
    pair(tmp_path, "a", blocks())
    put(tmp_path, "a.png", np.zeros((8, 8, 3)), folder="images")
    with pytest.raises(MissingMaskError):
        scan_masks(str(tmp_path), 3)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFolderError):
        scan_masks(str(tmp_path / "none"), 3)
    with pytest.raises(MissingFolderError, match="images"):
        scan_masks(str(tmp_path), 3)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    with pytest.raises(NoImagesError):
        scan_masks(str(tmp_path), 3)


def test_masks_are_resized_by_the_nearest_pixel_and_never_blended() -> None:
    mask = torch.tensor([[0, 3], [3, 0]], dtype=torch.uint8)[None]
    large = fitted(mask, Preprocessing(4, None, (0.0,), (1.0,), "bilinear", 1))
    assert torch.equal(large[0], mask[0].repeat_interleave(2, 0).repeat_interleave(2, 1))


def test_what_a_crop_adds_counts_for_nothing() -> None:
    mask = torch.tensor([[0, 255], [1, 254]], dtype=torch.uint8)[None]
    wide = fitted(mask, Preprocessing(None, 4, (0.0,), (1.0,), "bilinear", 1))[0]
    assert torch.equal(wide[1:3, 1:3], mask[0])
    assert int((wide == IGNORED).sum()) == 12 + 1


class Mirror:
    """A view that turns images and masks; stands for an Augmentation."""

    sizes = False

    def __init__(self, wanted: bytes) -> None:
        self.wanted = wanted

    def on_mask(self, mask: torch.Tensor, key: bytes) -> torch.Tensor:
        assert key == self.wanted  # the image's, so that its draws are the image's
        return mask.flip(-1)


@pytest.mark.parametrize("workers", [0, 3])
def test_masks_follow_the_views_of_their_images(tmp_path: Path, workers: int) -> None:
    values = [blocks() + n for n in range(3)]
    for name, value in zip("abc", values, strict=True):
        pair(tmp_path, name, value)
    samples: Samples = scan_masks(str(tmp_path), 3)["all"]
    mirror = Mirror(digest(samples.fetch(1)))
    targets = MaskTargets(samples, AS_IT_IS, lambda view: mirror if view else None, workers)  # type: ignore[arg-type,return-value]
    assert len(targets) == 3
    taken = targets.take([(2, 0), (1, 4), (0, 0)])
    assert taken.dtype == torch.int64
    for mask, wanted in zip(taken, (values[2], values[1][:, ::-1].copy(), values[0]), strict=True):
        assert torch.equal(mask, torch.from_numpy(wanted))


def test_mask_lies_on_its_image_after_resize_and_crop(tmp_path: Path) -> None:
    value = np.zeros((20, 30), int)
    value[5:15, 10:20] = 200
    pair(tmp_path, "a", value)
    samples = scan_masks(str(tmp_path), 3)["all"]
    preparing = Preprocessing(40, 32, (0.0,) * 3, (1.0,) * 3, "bilinear", 3)
    mask = MaskTargets(samples, preparing, lambda _view: None, 0).take([(0, 0)])[0]
    red = preparing.pixels(samples.read(0))[0]
    assert mask.shape == red.shape
    assert torch.equal(mask == 200, red > 100)
