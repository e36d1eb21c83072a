from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tlcompile.data import datasets
from tlcompile.data.datasets import DOWNLOADS, default_root, extract, open_dataset
from tlcompile.errors.archives import (
    ChecksumError,
    DownloadError,
    UnpackError,
    UnsafeArchiveError,
)
from tlcompile.errors.data import UnknownDatasetError
from tlcompile.errors.run import RunError


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def tgz(*members: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(member, content)
    return buffer.getvalue()


FLOWERS = tgz(
    ("flower_photos/LICENSE.txt", b"words"),
    ("flower_photos/roses/1.png", png()),
    ("flower_photos/daisy/1.png", png()),
)
BEES = zipped(
    ("hymenoptera_data/train/ants/1.png", png()),
    ("hymenoptera_data/train/bees/1.png", png()),
    ("hymenoptera_data/val/bees/2.png", png()),
)


class Answer(io.BytesIO):
    def __init__(self, content: bytes, length: int | None = None) -> None:
        super().__init__(content)
        self.headers = {} if length is None else {"Content-Length": str(length)}


def serve(content: bytes, length: int | None = None) -> Callable[[str], Any]:
    return lambda url: Answer(content, length)


def no_network(url: str) -> Any:
    raise AssertionError(url)


def silent(text: str) -> None:
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_digits_need_neither_folder_nor_network(tmp_path: Path) -> None:
    splits = open_dataset("digits", tmp_path / "none", 1, say=silent, opener=no_network)
    assert len(splits["all"]) == 1797
    assert not (tmp_path / "none").exists()
    assert open_dataset("digits", tmp_path, say=silent)["all"].read(0).shape == (3, 8, 8)


def test_unknown_name_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownDatasetError, match="did you mean 'flower_photos'") as caught:
        open_dataset("flower_photo", tmp_path, say=silent, opener=no_network)
    assert caught.value.names == datasets.NAMES


def test_first_download_is_unpacked_noted_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    opener = serve(FLOWERS, len(FLOWERS))
    flowers = open_dataset("flower_photos", tmp_path, say=said.append, opener=opener)["all"]
    assert flowers.counts() == {"daisy": 1, "roses": 1}
    assert flowers.read(0).shape == (3, 4, 4)
    digest = hashlib.sha256(FLOWERS).hexdigest()
    note = tmp_path / "flower_photos.tgz.sha256"
    assert note.read_text() == f"{digest}  flower_photos.tgz\n"
    assert said[0] == f"downloading flower_photos from {DOWNLOADS['flower_photos'].url}"
    assert digest in said[1]
    assert "compared from now on" in said[1]
    assert names(tmp_path) == ["flower_photos", "flower_photos.tgz", note.name]


def test_second_time_downloads_nothing(tmp_path: Path) -> None:
    open_dataset("hymenoptera", tmp_path, say=silent, opener=serve(BEES))
    said: list[str] = []
    splits = open_dataset("hymenoptera", tmp_path, say=said.append, opener=no_network)
    assert splits["train"].classes == ("ants", "bees")
    assert splits["val"].labels == (1,)
    assert said == []


def test_archive_fetched_by_hand_is_used(tmp_path: Path) -> None:
    (tmp_path / "hymenoptera_data.zip").write_bytes(BEES)
    splits = open_dataset("hymenoptera", tmp_path, say=silent, opener=no_network)
    assert len(splits["train"]) == 2


def lose(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def test_later_download_is_compared_with_the_first(tmp_path: Path) -> None:
    open_dataset("hymenoptera", tmp_path, say=silent, opener=serve(BEES))
    lose(tmp_path / "hymenoptera")
    (tmp_path / "hymenoptera_data.zip").unlink()
    other = zipped(("hymenoptera_data/train/ants/1.png", b"other"))
    with pytest.raises(ChecksumError) as caught:
        open_dataset("hymenoptera", tmp_path, say=silent, opener=serve(other))
    assert caught.value.wanted == hashlib.sha256(BEES).hexdigest()
    assert caught.value.found == hashlib.sha256(other).hexdigest()
    assert names(tmp_path) == ["hymenoptera_data.zip.sha256"]


def test_kept_archive_is_compared_before_it_is_unpacked(tmp_path: Path) -> None:
    open_dataset("hymenoptera", tmp_path, say=silent, opener=serve(BEES))
    lose(tmp_path / "hymenoptera")
    (tmp_path / "hymenoptera_data.zip").write_bytes(zipped(("hymenoptera_data/evil", b"")))
    with pytest.raises(ChecksumError):
        open_dataset("hymenoptera", tmp_path, say=silent, opener=no_network)
    assert not (tmp_path / "hymenoptera").exists()


def test_published_digest_is_compared_the_first_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = datasets.Download(url="https://x/a.zip", inside="a", sha256="0" * 64)
    monkeypatch.setattr(datasets, "DOWNLOADS", {"hymenoptera": download})
    with pytest.raises(ChecksumError, match="its owner"):
        open_dataset("hymenoptera", tmp_path, say=silent, opener=serve(BEES))
    assert names(tmp_path) == []


def test_short_download_is_refused(tmp_path: Path) -> None:
    opener = serve(BEES[:-10], len(BEES))
    with pytest.raises(DownloadError, match="curl -L -o") as caught:
        open_dataset("hymenoptera", tmp_path, say=silent, opener=opener)
    assert caught.value.cause.count(str(len(BEES))) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("cause", [TimeoutError("timed out"), http.client.IncompleteRead(b"")])
def test_broken_connection_is_a_download_error(tmp_path: Path, cause: Exception) -> None:
    def opener(url: str) -> Any:
        raise cause

    with pytest.raises(DownloadError):
        open_dataset("hymenoptera", tmp_path, say=silent, opener=opener)


def test_damaged_archive_leaves_no_folder_and_no_note(tmp_path: Path) -> None:
    with pytest.raises(UnpackError):
        open_dataset("flower_photos", tmp_path, say=silent, opener=serve(FLOWERS[:-30]))
    assert names(tmp_path) == ["flower_photos.tgz"]


def test_file_addresses_work_with_urllib_too(tmp_path: Path) -> None:
    import urllib.request

    source = tmp_path / "source.zip"
    source.write_bytes(BEES)
    opener = lambda url: urllib.request.urlopen(source.as_uri())  # noqa: E731
    assert open_dataset("hymenoptera", tmp_path / "cache", say=silent, opener=opener)


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TLCOMPILE_CACHE", raising=False)
    assert default_root() == Path("/home/me/.cache/tlcompile/datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", "/big")
    assert default_root() == Path("/big/tlcompile/datasets")
    monkeypatch.setenv("TLCOMPILE_CACHE", "/mine")
    assert default_root() == Path("/mine/datasets")


def tar_kind(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("a/link")
    info.type, info.linkname = kind, target
    return info


def zip_kind(kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("a/link")
    info.external_attr = (kind | 0o777) << 16
    return info


def bomb_header() -> bytes:
    """An extended tar header that promises 1 GB of text, which tarfile would read whole."""
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    return gzip.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))


ATTACKS = {
    "tar absolute": ("a.tgz", tgz(("/etc/x", b"x"))),
    "tar parent": ("a.tgz", tgz(("a/../../x", b"x"))),
    "tar windows": ("a.tgz", tgz(("..\\x", b"x"))),
    "tar drive": ("a.tgz", tgz(("C:/x", b"x"))),
    "tar symlink": ("a.tgz", tgz((tar_kind(tarfile.SYMTYPE, "/etc"), b""))),
    "tar hardlink": ("a.tgz", tgz((tar_kind(tarfile.LNKTYPE, "../x"), b""))),
    "tar device": ("a.tgz", tgz((tar_kind(tarfile.CHRTYPE), b""))),
    "tar fifo": ("a.tgz", tgz((tar_kind(tarfile.FIFOTYPE), b""))),
    "tar twice": ("a.tgz", tgz(("a/x", b"1"), ("a/x", b"2"))),
    "tar case": ("a.tgz", tgz(("a/x", b"1"), ("A/y", b"2"))),
    "tar unicode": ("a.tgz", tgz(("\u00e9", b"1"), ("e\u0301", b"2"))),
    "tar ratio": ("a.tgz", tgz(("a/x", bytes(5_000_000)))),
    "tar header": ("a.tgz", bomb_header()),
    "zip absolute": ("a.zip", zipped(("/etc/x", b"x"))),
    "zip parent": ("a.zip", zipped(("../x", b"x"))),
    "zip symlink": ("a.zip", zipped((zip_kind(stat.S_IFLNK), b"/etc"))),
    "zip device": ("a.zip", zipped((zip_kind(stat.S_IFCHR), b""))),
    "zip case": ("a.zip", zipped(("a/x", b"1"), ("a/X", b"2"))),
    "zip ratio": ("a.zip", zipped(("a/x", bytes(5_000_000)))),
}


def unpack(tmp_path: Path, name: str, content: bytes) -> Path:
    archive = tmp_path / name
    archive.write_bytes(content)
    with archive.open("rb") as file:
        extract(file, archive, tmp_path / "out" / "folder")
    return tmp_path / "out" / "folder"


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_are_refused_and_leave_nothing(tmp_path: Path, attack: str) -> None:
    name, content = ATTACKS[attack]
    with pytest.raises(UnsafeArchiveError):
        unpack(tmp_path, name, content)
    assert names(tmp_path) == [name, "out"]
    assert names(tmp_path / "out") == []


def test_header_that_is_read_whole_is_bounded_in_large_archives_too(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.XHDTYPE, 20 << 20
    photo = random.Random(0).randbytes(300_000)  # allows 30 MB by the ratio
    block = tarfile.TarInfo("photo")
    block.size = len(photo)
    plain = block.tobuf() + photo + bytes(-len(photo) % 512) + info.tobuf() + bytes(1024)
    with pytest.raises(UnsafeArchiveError):
        unpack(tmp_path, "a.tgz", gzip.compress(plain))


@pytest.mark.parametrize("make", [tgz, zipped])
def test_too_many_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., bytes]
) -> None:
    monkeypatch.setattr(datasets, "MAX_MEMBERS", 3)
    name = "a.tgz" if make is tgz else "a.zip"
    assert names(unpack(tmp_path, name, make(*((f"{i}", b"") for i in range(3))))) == list("012")
    with pytest.raises(UnsafeArchiveError, match="more than 3 members"):
        unpack(tmp_path, name, make(*((f"{i}", b"") for i in range(4))))


@pytest.mark.parametrize("make", [tgz, zipped])
def test_plain_archive_is_unpacked_to_the_bit(tmp_path: Path, make: Callable[..., bytes]) -> None:
    contents = {"a/x": b"", "a/y": bytes(range(256)) * 2, "a/b/z": b"z" * 513, "./c": b"c"}
    folder = unpack(tmp_path, "a.tgz" if make is tgz else "a.zip", make(*contents.items()))
    found = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
    assert {k: p.read_bytes() for k, p in found.items()} == {
        k.removeprefix("./"): v for k, v in contents.items()
    }
    assert not folder.stat().st_mode & stat.S_IWOTH
    assert folder.stat().st_mode & stat.S_IRUSR


def test_file_modes_of_the_archive_are_not_taken(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a")
    info.mode = 0o6777
    folder = unpack(tmp_path, "a.tgz", tgz((info, b"x")))
    assert stat.S_IMODE((folder / "a").stat().st_mode) & 0o6111 == 0


@pytest.mark.parametrize(("name", "whole"), [("a.tgz", FLOWERS), ("a.zip", BEES)])
def test_damaged_bytes_end_in_an_error_or_the_whole_tree(
    tmp_path: Path, name: str, whole: bytes
) -> None:
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        root = tmp_path / str(position)
        root.mkdir()
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        try:
            unpack(root, name, bytes(damaged))
        except (UnpackError, UnsafeArchiveError, RunError):
            assert names(root / "out") == []


def test_folder_made_by_another_process_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "folder"
    folder.mkdir(parents=True)
    (folder / "first").write_bytes(b"")
    unpack(tmp_path, "a.zip", zipped(("second", b"")))
    assert names(folder) == ["first"]
    assert names(tmp_path / "out") == ["folder"]
