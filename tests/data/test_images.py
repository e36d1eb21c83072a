from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlcompile.data import images
from tlcompile.data.images import check_images, read_image
from tlcompile.errors.data import (
    TooManyPixelsError,
    UnreadableImagesError,
    UnsupportedImageError,
)


def pattern(height: int, width: int, channels: int = 3) -> np.ndarray:
    values = np.arange(height * width * channels, dtype=np.uint32) * 37 % 256
    array = values.astype(np.uint8).reshape(height, width, channels)
    return array if channels > 1 else array[..., 0]


def truncated(path: Path) -> Path:
    Image.fromarray(pattern(64, 64)).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:-400])
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "webp"])
def test_lossless_formats_are_read_to_the_bit(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pattern(5, 7)).save(path, lossless=True)  # only WEBP looks at it
    image = read_image(path)
    assert image.dtype == torch.uint8
    assert np.array_equal(image.permute(1, 2, 0).numpy(), pattern(5, 7))


def test_jpeg_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pattern(20, 30)).save(path)
    assert np.array_equal(read_image(path).permute(1, 2, 0).numpy(), np.array(Image.open(path)))


def test_grey_becomes_three_equal_channels_and_rgb_one(tmp_path: Path) -> None:
    Image.fromarray(pattern(5, 7, 1)).save(tmp_path / "grey.png")
    grey = torch.from_numpy(pattern(5, 7, 1))
    assert torch.equal(read_image(tmp_path / "grey.png"), grey.expand(3, -1, -1))
    assert torch.equal(read_image(tmp_path / "grey.png", channels=1), grey[None])
    Image.new("RGB", (2, 2), (255, 0, 0)).save(tmp_path / "red.png")
    assert torch.equal(read_image(tmp_path / "red.png", 1), torch.full((1, 2, 2), 76).byte())


def test_exif_orientation_6_is_turned_clockwise(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    Image.fromarray(pattern(20, 40)).save(path, exif=exif)  # 40 wide, 20 high
    image = read_image(path)
    assert image.shape == (3, 40, 20)
    assert np.array_equal(image.permute(1, 2, 0).numpy(), np.rot90(pattern(20, 40), -1))


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (3, 1), (200, 100, 0, 255))
    rgba.putpixel((1, 0), (200, 100, 0, 0))
    rgba.putpixel((2, 0), (0, 0, 0, 51))
    rgba.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image[:, 0].T.tolist() == [[200, 100, 0], [255, 255, 255], [204, 204, 204]]


def test_palette_and_its_transparent_entry(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]
    palette.save(tmp_path / "b.png", transparency=1)
    assert read_image(tmp_path / "b.png")[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == (3, 8, 8)
    red, green, blue = image.float().mean((1, 2)).tolist()
    assert red > 250
    assert green < 5
    assert blue < 5


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, ending: str) -> None:
    values = np.array([[0, 128, 129, 257, 300, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{ending}")
    wanted = [round(int(v) / 257) for v in values[0]]
    assert read_image(tmp_path / f"a.{ending}", channels=1)[0, 0].tolist() == wanted
    assert read_image(tmp_path / f"a.{ending}")[2, 0].tolist() == wanted


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bit_pixels_are_refused_by_mode(tmp_path: Path, dtype: type) -> None:
    Image.fromarray(np.ones((2, 2), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(UnsupportedImageError) as caught:
        read_image(tmp_path / "a.tif")
    assert caught.value.mode == ("I" if dtype is np.int32 else "F")


def test_first_frame_of_a_gif(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), color) for color in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[:, 0, 0].tolist() == [255, 0, 0]


def test_truncated_jpeg_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImagesError, match="truncated"):
        read_image(truncated(tmp_path / "a.jpg"))


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "gif"])
def test_cut_anywhere_ends_in_an_error_or_the_whole_image(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pattern(24, 24)).save(path)
    whole, wanted = path.read_bytes(), read_image(path)
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:length])
        try:
            assert torch.equal(read_image(path), wanted), length
        except UnreadableImagesError:
            continue


def test_other_formats_are_refused_whatever_their_name(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", format="PPM")
    with pytest.raises(UnreadableImagesError, match="none of JPEG"):
        read_image(tmp_path / "a.jpg")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImagesError, match="no such file"):
        read_image(tmp_path / "a.jpg")


def test_too_many_pixels_are_refused_before_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert read_image(tmp_path / "a.png").shape == (3, 10, 10)
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    with pytest.raises(TooManyPixelsError, match="10 x 10 pixels"):
        read_image(tmp_path / "a.png")


def test_pillows_own_bomb_check_becomes_the_same_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(TooManyPixelsError):
        read_image(tmp_path / "a.png")


def test_check_images_reports_all_bad_files_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 64 * 64)
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    Image.new("RGB", (65, 64)).save(tmp_path / "huge.png")
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "text.jpg").write_text("hello")
    cut = truncated(tmp_path / "cut.jpg")
    names = ["huge.png", "good.png", "float.tif", "text.jpg", "gone.jpg"]
    with pytest.raises(UnreadableImagesError) as caught:
        check_images([*(tmp_path / name for name in names), cut], workers=3)
    found = [(Path(path).name, reason) for path, reason in caught.value.images]
    assert [name for name, _ in found] == [
        "huge.png",
        "float.tif",
        "text.jpg",
        "gone.jpg",
        "cut.jpg",
    ]
    assert "65 x 64" in found[0][1]
    assert "mode 'F'" in found[1][1]


def test_check_images_passes_good_ones(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "good.png")
    before = (tmp_path / "good.png").stat()
    check_images([tmp_path / "good.png"], workers=0)
    assert (tmp_path / "good.png").stat().st_mtime_ns == before.st_mtime_ns
    assert len(list(tmp_path.iterdir())) == 1


def test_many_bad_images_are_cut_after_eight_with_the_count() -> None:
    bad = tuple((f"data/{i}.jpg", "it is cut short") for i in range(20))
    text = str(UnreadableImagesError(images=bad))
    assert "data/7.jpg: it is cut short" in text
    assert "data/8.jpg" not in text
    assert "... (20 in all)" in text
