"""Images as they come: plain, odd and broken. Each with the pixels it must give, or why it is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms

BIG = 60_000  # pixels a side, in a header with nothing behind it


@dataclass(frozen=True)
class Case:
    """One file.

    Args:
        name: Its name.
        data: What is in it.
        wanted: Its pixels (H, W, 3), or a part of the reason for which it is refused.
        notes: What is said of it.
        within: Levels that a pixel may differ by, where the file itself is not exact.
    """

    name: str
    data: bytes
    wanted: np.ndarray | str
    notes: tuple[str, ...] = ()
    within: int = 0


def picture(height: int = 12, width: int = 20, channels: int = 3) -> np.ndarray:
    """Draw a ramp without any symmetry, smooth enough for lossy formats."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [(9 * x + 5 * y + 20 * c * x // (c + 1)) % 256 for c in range(channels)]
    return np.stack(planes, -1).astype(np.uint8)


RGB = Image.fromarray(picture())
GREY = RGB.convert("L")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(values: Any) -> np.ndarray:
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, -1)


def row(*colours: tuple[int, int, int]) -> np.ndarray:
    return np.array([colours], np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, bits: int, kind: int, line: bytes, extra: bytes = b"", height: int = 1
) -> bytes:
    """Write a PNG of one line; kind 0 is grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    body = extra + chunk(b"IDAT", zlib.compress(b"\0" + line)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body


def tiff(
    width: int, height: int, bits: int, kind: int, samples: int = 1, data: bytes = b""
) -> bytes:
    """Write a TIFF header of one strip; kind 1 are whole numbers, 2 signed ones, 3 floats."""
    offset = 8 + 2 + 12 * 9 + 4
    tags = (
        (256, width), (257, height), (258, bits), (259, 1), (262, 1 if samples == 1 else 2),
        (273, offset), (277, samples), (279, len(data)), (339, kind),
    )  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + data


def cases() -> list[Case]:
    """Return all files, under names of their own."""
    parts = (
        _plain(), _turned(), _modes(), _sixteen_bit(), _frames(), _profiles(), _misnamed(),
        _cut(), _foreign(), _unsupported(), _too_large(), _damaged(),
    )  # fmt: skip
    found = [case for part in parts for case in part]
    assert len({case.name for case in found}) == len(found)
    return found


def _plain() -> Iterator[Case]:
    for name, options in {
        "q95": {"quality": 95},
        "q10": {"quality": 10},
        "444": {"subsampling": 0},
        "420": {"subsampling": 2},
        "progressive": {"progressive": True},
        "optimised": {"optimize": True},
        "restarts": {"restart_marker_rows": 1},
    }.items():
        data = saved(RGB, "JPEG", **options)
        yield Case(f"{name}.jpg", data, np.asarray(Image.open(io.BytesIO(data))))
    yield Case("grey.jpeg", saved(GREY, "JPEG", quality=100), grey(GREY), within=4)
    yield Case("rgb.png", saved(RGB, "PNG"), picture())
    yield Case("rgb.bmp", saved(RGB, "BMP"), picture())
    yield Case("lossless.webp", saved(RGB, "WEBP", lossless=True), picture())
    data = saved(RGB, "WEBP", quality=90)
    yield Case("lossy.webp", data, np.asarray(Image.open(io.BytesIO(data))))
    for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield Case(f"{packing}.tif", saved(RGB, "TIFF", compression=packing), picture())
    yield Case(
        "jpeg.tiff", saved(RGB, "TIFF", compression="jpeg", quality=95), picture(), within=60
    )
    few = GREY.quantize(64)
    yield Case("few.gif", saved(few, "GIF"), np.asarray(few.convert("RGB")))
    yield Case("one_pixel.png", saved(RGB.crop((0, 0, 1, 1)), "PNG"), picture()[:1, :1])


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn what is stored under an EXIF orientation; the rows and columns of the EXIF standard."""
    turned = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.swapaxes(0, 1),
        6: array[::-1].swapaxes(0, 1),
        7: array[::-1, ::-1].swapaxes(0, 1),
        8: array.swapaxes(0, 1)[::-1],
    }
    return turned[orientation]


def _turned() -> Iterator[Case]:
    kinds = {
        "jpg": ("JPEG", {"quality": 95}),
        "png": ("PNG", {}),
        "webp": ("WEBP", {"lossless": True}),
        "raw.tif": ("TIFF", {}),
        "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    }
    for ending, (kind, options) in kinds.items():
        stored = np.asarray(Image.open(io.BytesIO(saved(RGB, kind, **options))))
        for orientation in range(1, 9):
            exif = Image.Exif()
            exif[0x0112] = orientation
            data = saved(RGB, kind, exif=exif, **options)
            notes = ("turned upright",) if orientation > 1 else ()
            yield Case(f"turned{orientation}.{ending}", data, upright(stored, orientation), notes)


ON_WHITE = ("transparent, laid on white",)


def _modes() -> Iterator[Case]:
    black = GREY.point(lambda level: 255 * (level > 99)).convert("1", dither=Image.Dither.NONE)
    for ending, kind in (("png", "PNG"), ("bmp", "BMP"), ("gif", "GIF"), ("tif", "TIFF")):
        yield Case(f"one_bit.{ending}", saved(black, kind), grey(black.convert("L")))
        yield Case(f"grey.{ending}", saved(GREY, kind), grey(GREY))
    yield Case("two_bits.png", png(4, 2, 0, b"\x1b"), grey([[0, 85, 170, 255]]))
    yield Case("four_bits.png", png(2, 4, 0, b"\x0f"), grey([[0, 255]]))
    palette = chunk(b"PLTE", bytes((10, 20, 30, 40, 50, 60)))
    yield Case("palette.png", png(2, 8, 3, b"\0\1", palette), row((10, 20, 30), (40, 50, 60)))
    some = palette + chunk(b"tRNS", bytes((0,)))
    yield Case(
        "palette_hole.png", png(2, 8, 3, b"\0\1", some), row((255,) * 3, (40, 50, 60)), ON_WHITE
    )
    half = palette + chunk(b"tRNS", bytes((255, 51)))
    yield Case(
        "palette_half.png",
        png(2, 8, 3, b"\0\1", half),
        row((10, 20, 30), (212, 214, 216)),
        ON_WHITE,
    )
    rgba = Image.new("RGBA", (3, 1), (200, 100, 0, 255))
    rgba.putpixel((1, 0), (200, 100, 0, 0))
    rgba.putpixel((2, 0), (0, 0, 0, 51))
    laid = row((200, 100, 0), (255, 255, 255), (204, 204, 204))
    yield Case("alpha.png", saved(rgba, "PNG"), laid, ON_WHITE)
    yield Case("alpha.webp", saved(rgba, "WEBP", lossless=True, exact=True), laid, ON_WHITE)
    yield Case("alpha.tif", saved(rgba, "TIFF"), laid, ON_WHITE)
    yield Case("grey_alpha.png", png(2, 8, 4, bytes((9, 255, 9, 0))), grey([[9, 255]]), ON_WHITE)
    hole = chunk(b"tRNS", struct.pack(">H", 7))
    yield Case("grey_hole.png", png(2, 8, 0, bytes((7, 200)), hole), grey([[255, 200]]), ON_WHITE)
    hole = chunk(b"tRNS", struct.pack(">HHH", 7, 8, 9))
    colours = row((255, 255, 255), (200, 100, 50))
    line = bytes((7, 8, 9, 200, 100, 50))
    yield Case("rgb_hole.png", png(2, 8, 2, line, hole), colours, ON_WHITE)
    cmyk = ("CMYK, made RGB",)
    for ending, kind in (("jpg", "JPEG"), ("tif", "TIFF")):
        for name, ink in (("red", (0, 255, 255, 0)), ("dark", (0, 0, 0, 200))):
            wanted = np.full((8, 8, 3), [(255 - c) * (255 - ink[3]) // 255 for c in ink[:3]])
            data = saved(Image.new("CMYK", (8, 8), ink), kind)
            yield Case(f"cmyk_{name}.{ending}", data, wanted, cmyk, within=2)
    yield Case("ycbcr.tif", saved(RGB.convert("YCbCr"), "TIFF"), picture(), within=3)


def _sixteen_bit() -> Iterator[Case]:
    levels = (0, 128, 129, 257, 300, 32768, 65535)
    scaled = grey([[round(v / 257) for v in levels]])
    notes = ("16-bit, made 8-bit",)
    big = struct.pack(f">{len(levels)}H", *levels)
    small = struct.pack(f"<{len(levels)}H", *levels)
    yield Case("sixteen.png", png(len(levels), 16, 0, big), scaled, notes)
    yield Case("sixteen.tif", tiff(len(levels), 1, 16, 1, data=small), scaled, notes)
    hole = chunk(b"tRNS", struct.pack(">H", 300))
    holed = scaled.copy()
    holed[0, 4] = 255
    yield Case("sixteen_hole.png", png(len(levels), 16, 0, big, hole), holed, notes + ON_WHITE)
    upper = row((0, 1, 1), (255, 128, 0))
    colours = struct.pack(">6H", 0, 257, 300, 65535, 32768, 128)
    yield Case("sixteen_rgb.png", png(2, 16, 2, colours), upper, notes)
    colours = struct.pack(">8H", 0, 257, 300, 65535, 65535, 32768, 128, 0)
    laid = row((0, 1, 1), (255, 255, 255))
    yield Case("sixteen_alpha.png", png(2, 16, 6, colours), laid, notes + ON_WHITE)
    both = struct.pack(">4H", 300, 65535, 1000, 0)
    yield Case("sixteen_grey_alpha.png", png(2, 16, 4, both), grey([[1, 255]]), notes + ON_WHITE)


def _frames() -> Iterator[Case]:
    frames = [Image.new("RGB", (2, 2), c) for c in ((255, 0, 0), (0, 0, 255), (0, 255, 0))]
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    for ending, kind in (("gif", "GIF"), ("png", "PNG"), ("webp", "WEBP"), ("tif", "TIFF")):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        yield Case(f"frames.{ending}", data, red, ("first frame of several",))
    data = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    yield Case("frames.jpg", data, red, ("first frame of several",), within=2)


def _profiles() -> Iterator[Case]:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield Case("srgb.png", saved(RGB, "PNG", icc_profile=srgb), picture())
    other = srgb.replace(b"sRGB", b"oRGB")
    other = other.replace("sRGB".encode("utf-16-be"), "oRGB".encode("utf-16-be"))
    noted = ("colour profile not applied",)
    yield Case("other.png", saved(RGB, "PNG", icc_profile=other), picture(), noted)


def _misnamed() -> Iterator[Case]:
    yield Case("really_a_gif.jpg", saved(GREY, "GIF"), grey(GREY))
    yield Case("really_a_png.jpg", saved(RGB, "PNG"), picture())
    yield Case("really_a_webp.png", saved(RGB, "WEBP", lossless=True), picture())
    yield Case("really_a_bmp.TIFF", saved(RGB, "BMP"), picture())


def _cut() -> Iterator[Case]:
    noise = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    for ending, kind in (
        ("jpg", "JPEG"), ("png", "PNG"), ("webp", "WEBP"), ("bmp", "BMP"), ("tif", "TIFF"),
        ("gif", "GIF"),
    ):  # fmt: skip
        whole = saved(Image.fromarray(noise), kind)
        yield Case(f"half.{ending}", whole[: len(whole) // 2], "")
        yield Case(f"start.{ending}", whole[:10], "")


def _foreign() -> Iterator[Case]:
    none = "none of JPEG"
    yield Case("empty.jpg", b"", "it is empty")
    yield Case("page.jpg", b"<!DOCTYPE html><html><body>404 not found</body></html>", none)
    yield Case("text.png", b"no image at all\n", none)
    yield Case("drawing.png", b'<svg xmlns="http://www.w3.org/2000/svg"/>', none)
    yield Case("zeros.jpg", bytes(5000), none)
    yield Case("random.jpg", np.random.default_rng(1).bytes(5000), none)
    yield Case("zip.png", b"PK\3\4" + bytes(100), none)
    yield Case("heic.jpg", b"\0\0\0\x18ftypheic" + bytes(100), none)
    yield Case("pixmap.jpg", saved(RGB, "PPM"), none)
    yield Case("script.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", none)
    yield Case("icon.png", saved(RGB, "ICO"), none)


def _unsupported() -> Iterator[Case]:
    yield Case("int32.tif", saved(Image.new("I", (2, 2), 70_000), "TIFF"), "mode 'I'")
    yield Case("float.tif", saved(Image.new("F", (2, 2), 0.5), "TIFF"), "mode 'F'")
    yield Case("lab.tif", saved(Image.new("LAB", (2, 2)), "TIFF"), "mode 'LAB'")
    hole = chunk(b"tRNS", struct.pack(">3H", 0, 257, 300))
    line = struct.pack(">3H", 0, 257, 300)
    yield Case("sixteen_rgb_hole.png", png(1, 16, 2, line, hole), "16-bit RGB with a transparent")
    yield Case("double.tif", tiff(1, 1, 64, 3, data=bytes(8)), "")
    yield Case("signed.tif", tiff(1, 1, 16, 2, data=b"\xff\xff"), "")


def _too_large() -> Iterator[Case]:
    yield Case("bomb.png", png(BIG, 8, 2, b"", height=BIG), "pixels, more than")
    # Below Pillow's own limit, above ours.
    yield Case("large.png", png(10_000, 8, 0, b"", height=10_000), "10000 x 10000 pixels, more")
    info = struct.pack("<IiiHHIIiiII", 40, BIG, BIG, 1, 24, 0, 0, 0, 0, 0, 0)
    yield Case("bomb.bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info, "pixels, more than")
    yield Case("bomb.tif", tiff(BIG, BIG, 8, 1), "pixels, more than")
    gif = b"GIF89a" + struct.pack("<HHBBB", BIG, BIG, 0, 0, 0)
    gif += b"\x2c" + struct.pack("<HHHHB", 0, 0, BIG, BIG, 0) + b"\2\0;"
    yield Case("bomb.gif", gif, "pixels, more than")
    jpeg = saved(RGB, "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    size = struct.pack(">HH", BIG, BIG)
    yield Case("bomb.jpg", jpeg[:at] + size + jpeg[at + 4 :], "pixels, more than")


def _damaged() -> Iterator[Case]:
    yield Case("no_width.png", png(0, 8, 2, b""), "")
    info = struct.pack("<IiiHHIIiiII", 40, 0, 0, 1, 24, 0, 0, 0, 0, 0, 0)
    yield Case("no_size.bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + info, "")
    yield Case("no_size.tif", tiff(0, 0, 8, 1), "")
    yield Case("no_size.gif", b"GIF89a" + bytes(7) + b"\x2c" + bytes(9) + b"\2\0;", "")
    palette = chunk(b"PLTE", bytes((10, 20, 30, 40, 50, 60)))
    yield Case("colour_7.png", png(2, 8, 3, b"\0\7", palette), "colour 7 of a palette of 2")
    yield Case("no_palette.png", png(2, 8, 3, b"\0\1"), "palette of 0")
    whole = saved(RGB, "PNG")
    at = whole.index(b"IDAT") + 30
    yield Case("flipped_bit.png", whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :], "")
    exif = b"Exif\0\0" + b"no TIFF header"
    yield Case("damaged_exif.png", saved(RGB, "PNG", exif=exif), "not a TIFF file")
    yield Case("header_only.jpg", saved(RGB, "JPEG")[:300], "")
