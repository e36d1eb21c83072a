"""Every odd or broken image ends well: read to the right pixels, or refused by name with a reason."""

from __future__ import annotations

import hashlib
import os
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from corpus import Case, cases, saved
from PIL import Image

from tlcompile.data import images
from tlcompile.data.digests import digests_of
from tlcompile.data.folder import file_samples, scan_folder
from tlcompile.data.images import check_images, decode_image, read_image
from tlcompile.data.notes import count_notes, notes_on
from tlcompile.errors.data import (
    TooManyPixelsError,
    UnreadableImagesError,
    UnsupportedImageError,
)

# Pillow warns of what it then refuses; a run goes on to the refusal.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")

CASES = cases()
REFUSED = [case for case in CASES if isinstance(case.wanted, str)]
READ = [case for case in CASES if not isinstance(case.wanted, str)]


def levels(case: Case, channels: int = 3) -> np.ndarray:
    return decode_image(case.data, case.name, channels).permute(1, 2, 0).numpy().astype(int)


def test_there_are_enough() -> None:
    assert len(CASES) > 120
    assert len(REFUSED) > 40


@pytest.mark.parametrize("case", READ, ids=lambda case: case.name)
def test_it_is_read_to_the_right_pixels(case: Case) -> None:
    found = levels(case)
    assert found.shape == case.wanted.shape  # type: ignore[union-attr]
    assert np.abs(found - np.asarray(case.wanted, int)).max() <= case.within
    assert levels(case, channels=1).shape == (*found.shape[:2], 1)
    assert notes_on(case.data) == case.notes


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_it_is_refused_by_name_with_a_reason(case: Case) -> None:
    kinds = (UnreadableImagesError, UnsupportedImageError, TooManyPixelsError)
    with pytest.raises(kinds) as caught:
        decode_image(case.data, case.name)
    assert isinstance(caught.value, kinds)
    assert case.name in str(caught.value)
    assert str(case.wanted) in caught.value.reason()
    assert caught.value.reason()
    assert "object at 0x" not in caught.value.reason()
    notes_on(case.data)  # looks at what it can, and raises nothing


def tree_digest(folder: Path) -> str:
    """Hash all names, contents, modes and times."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"{path} {status.st_mode} {status.st_mtime_ns} {status.st_size}\n".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus" / "a"
    folder.mkdir(parents=True)
    for case in CASES:
        (folder / case.name).write_bytes(case.data)
    return folder.parent


def test_all_bad_ones_are_told_at_once_and_nothing_is_changed(corpus: Path) -> None:
    before = tree_digest(corpus)
    samples = scan_folder(corpus)["all"]
    assert [Path(name).name for name in samples.ids] == sorted(case.name for case in CASES)
    with pytest.raises(UnreadableImagesError) as caught:
        check_images(samples.ids, workers=3)
    found = [Path(path).name for path, _ in caught.value.images]
    assert found == sorted(case.name for case in REFUSED)
    assert digests_of(samples, workers=3).shape == (len(CASES), 32)
    wanted = Counter(note for case in READ for note in case.notes)
    good = [i for i, name in enumerate(samples.ids) if Path(name).name not in set(found)]
    assert count_notes(samples, good, workers=3) == wanted
    assert tree_digest(corpus) == before


def test_scrambled_anywhere_it_is_read_or_refused() -> None:
    noise = np.random.default_rng(0)
    source = Image.fromarray(noise.integers(256, size=(24, 24, 3), dtype=np.uint8))
    read = refused = 0
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"):
        whole = np.frombuffer(saved(source, kind), np.uint8)
        for _ in range(30):
            data = whole.copy()
            at = noise.integers(len(data) - 8)
            data[at : at + 8] = noise.integers(256, size=8)
            try:
                assert decode_image(data.tobytes(), kind).dim() == 3
                read += 1
            except (UnreadableImagesError, UnsupportedImageError, TooManyPixelsError):
                refused += 1
    assert read > 10
    assert refused > 10


# What is named like an image and is no file


def special_files(folder: Path) -> dict[str, str]:
    """Make them; return the reason for each."""
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    os.symlink("gone", folder / "broken.jpg")
    os.symlink("loop.jpg", folder / "loop.jpg")
    os.symlink("/dev/zero", folder / "device.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.jpg"))
    with (folder / "huge.jpg").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    return {
        "folder.jpg": "it is a folder",
        "pipe.jpg": "it is no plain file",
        "broken.jpg": "it links to a file that is not there",
        "loop.jpg": "symbolic links",
        "device.jpg": "it is no plain file",
        "socket.jpg": "No such device",
        "huge.jpg": "536,870,913 bytes, more than 536,870,912",
    }


def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    reasons = special_files(Path("a"))
    Image.new("RGB", (4, 4)).save("a/good.png")
    os.symlink("good.png", "a/link.png")
    samples = scan_folder(".")["all"]
    assert len(samples) == len(reasons) + 2
    for refuse in (lambda: check_images(samples.ids, 2), lambda: digests_of(samples, workers=2)):
        with pytest.raises(UnreadableImagesError) as caught:
            refuse()
        found = {Path(path).name: reason for path, reason in caught.value.images}
        assert list(found) == sorted(reasons)
        for name, reason in reasons.items():
            assert reason in found[name]


def test_what_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: str, _flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(images, "open_to_read", forbidden)
    with pytest.raises(UnreadableImagesError, match="it may not be read"):
        read_image(tmp_path / "a.jpg")


def test_a_folder_that_may_not_be_listed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a" / "1.png")
    scandir = os.scandir

    def forbidden(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(UnreadableImagesError, match=r"cannot\s+be\s+listed:\s+Permission\s+denied"):
        scan_folder(tmp_path)


def test_bytes_that_are_no_image_have_no_notes() -> None:
    assert notes_on(b"") == ()
    samples = file_samples(("a",), (0,), ("a",), 3)
    with pytest.raises(UnreadableImagesError, match="no such file"):
        count_notes(samples, [0], workers=0)
