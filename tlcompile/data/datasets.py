"""Data sets by name: bundled, or downloaded once, checked, and unpacked without trust."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import IO, Any
from urllib.error import URLError

from tlcompile.data.digits import load_digits
from tlcompile.data.folder import scan_folder
from tlcompile.data.samples import Samples
from tlcompile.data.torchvision_sets import KINDS, open_torchvision
from tlcompile.durable import make_folder, replacing, write_file
from tlcompile.errors.archives import (
    ChecksumError,
    DownloadError,
    UnpackError,
    UnsafeArchiveError,
)
from tlcompile.errors.data import UnknownDatasetError

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20  # bytes
MAX_MEMBERS = 100_000
MAX_RATIO = 100  # unpacked to packed bytes; photographs stay near 1
MAX_READ = 16 << 20  # bytes at once; tar headers may promise any size, and are read whole

# What tarfile, zipfile and the decompressors raise on damaged bytes.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # an encrypted zip, or nested headers past the recursion limit
)

Say = Callable[[str], None]
Opener = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Download:
    """Where a data set comes from.

    Args:
        url: A .tgz or .zip file.
        inside: The data folder inside the archive.
        sha256: The digest that its owner publishes; None where there is none.
    """

    url: str
    inside: str
    sha256: str | None = None


DOWNLOADS = MappingProxyType(
    {
        "flower_photos": Download(
            url="https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
            inside="flower_photos",
        ),
        "hymenoptera": Download(
            url="https://download.pytorch.org/tutorial/hymenoptera_data.zip",
            inside="hymenoptera_data",
        ),
    }
)
NAMES = ("digits", *DOWNLOADS, *KINDS)


def default_root() -> Path:
    """Return `$TLCOMPILE_CACHE/datasets`, else the folder in the user's cache."""
    if own := os.environ.get("TLCOMPILE_CACHE"):
        return Path(own) / "datasets"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "tlcompile" / "datasets"


def open_https(url: str) -> AbstractContextManager[Any]:
    """Open a download; the answer must be encrypted to its last redirect."""
    response = urllib.request.urlopen(url, timeout=TIMEOUT)
    if not response.url.startswith("https://"):
        response.close()
        raise URLError(f"redirected to {response.url}, which is not encrypted")
    return response  # type: ignore[no-any-return]  # typeshed leaves urlopen open


def open_dataset(
    name: str,
    root: Path,
    channels: int = 3,
    *,
    say: Say,
    opener: Opener = open_https,
) -> dict[str, Samples]:
    """Open a data set by name; download and unpack it the first time.

    Args:
        name: One of `NAMES`.
        root: Folder that keeps archives and what is in them, as `default_root()`.
        channels: 3 for RGB, 1 for grey.
        say: Gets one line for each thing that takes long or is taken on trust.
        opener: Opens an address for reading.

    Returns:
        Samples by split, as `scan_folder`.

    Raises:
        UnknownDatasetError: There is no data set of that name.
        DownloadError: The archive cannot be fetched, or is cut short.
        ChecksumError: The archive is not the published one, or not the one of the first time.
        UnsafeArchiveError: The archive would write outside of its folder, or fill the disk.
        UnpackError: The archive is damaged.
        DatasetDownloadError, IncompleteDatasetError: The same of torchvision's data sets.
        RunError: The disk is full, or may not be written.
    """
    if name == "digits":
        return {"all": load_digits(channels)}
    if name in KINDS:
        return open_torchvision(name, root, channels, say=say)
    if name not in DOWNLOADS:
        raise UnknownDatasetError(name=name, names=NAMES)
    source, folder = DOWNLOADS[name], root / name
    if not folder.is_dir():
        archive = root / source.url.rsplit("/", 1)[-1]
        if not archive.exists():
            say(f"downloading {name} from {source.url}")
            _download(source, archive, opener)
        _install(source, archive, folder, say)
    return scan_folder(folder / source.inside, channels)


def _note(archive: Path) -> Path:
    return archive.with_name(f"{archive.name}.sha256")


def _compare(source: Download, archive: Path, found: str) -> None:
    note = _note(archive)
    wanted = source.sha256 or (note.read_text().partition(" ")[0] if note.exists() else found)
    if found != wanted:
        published = source.sha256 is not None
        raise ChecksumError(archive=str(archive), found=found, wanted=wanted, published=published)


def _download(source: Download, archive: Path, opener: Opener) -> None:
    """Fetch an archive; a short or a wrong one never gets its name."""
    try:
        with opener(source.url) as response, replacing(archive) as file:
            _compare(source, archive, _copy(response, file))
    except (OSError, http.client.HTTPException) as cause:
        raise DownloadError(url=source.url, archive=str(archive), cause=str(cause)) from cause


def _copy(response: Any, file: IO[bytes]) -> str:
    """Copy a download and return its digest."""
    digest, received = hashlib.sha256(), 0
    while chunk := response.read(CHUNK):
        digest.update(chunk)
        received += len(chunk)
        file.write(chunk)
    # http.client ends a cut download like a whole one when it is read in pieces.
    promised = getattr(response, "headers", {}).get("Content-Length")
    if promised is not None and int(promised) != received:
        raise URLError(f"{received} of {promised} bytes arrived")
    return digest.hexdigest()


def _install(source: Download, archive: Path, folder: Path, say: Say) -> None:
    """Check and unpack an archive from one open file: what was hashed is what is unpacked."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        _compare(source, archive, found)
        file.seek(0)
        extract(file, archive, folder)
    if source.sha256 is None and not _note(archive).exists():
        write_file(_note(archive), f"{found}  {archive.name}\n".encode())
        say(
            f"{archive.name} has no published checksum: sha256 {found} of this first download"
            f" is kept in {_note(archive)} and compared from now on"
        )


def extract(file: IO[bytes], archive: Path, folder: Path) -> None:
    """Unpack an open .tgz or .zip into a new folder, whole or not at all.

    Only plain files and folders are written, by us, without owners, modes or times.

    Raises:
        UnsafeArchiveError: A member is absolute, has "..", is a link or a device, appears twice
            or differs from another in case alone; more than `MAX_MEMBERS`; more than
            `MAX_RATIO` times the archive's size.
        UnpackError: The archive is damaged.
        RunError: The disk is full, or may not be written.
    """
    try:
        make_folder(folder.parent)
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder.parent) as temporary:
            inner = Path(temporary) / folder.name  # has the usual mode; mkdtemp's is private
            inner.mkdir()
            _write_members(_members(file, archive), archive, inner)
            _rename(inner, folder)
    except _DAMAGE as cause:
        raise UnpackError(archive=str(archive), cause=str(cause)) from cause


def _rename(inner: Path, folder: Path) -> None:
    try:
        inner.replace(folder)
    except OSError:
        if not folder.is_dir():  # Another process may have been first; its folder is as good.
            raise


def _write_members(
    members: Iterator[tuple[str, IO[bytes] | None]], archive: Path, folder: Path
) -> None:
    spelled: dict[str, str] = {}
    for count, (name, content) in enumerate(members, start=1):
        if count > MAX_MEMBERS:
            raise _unsafe(archive, name, f"more than {MAX_MEMBERS} members")
        path = _inside(name, archive, spelled)
        target = folder / path
        if content is None:
            make_folder(target)
            continue
        if target.exists():
            raise _unsafe(archive, name, "a second member of this name")
        # Each file is brought to the disk: a folder that is there is taken to be whole for ever.
        with content, replacing(target) as file:
            shutil.copyfileobj(content, file, CHUNK)


def _inside(name: str, archive: Path, spelled: dict[str, str]) -> PurePosixPath:
    """Return a member's path, or refuse one that some file system would put elsewhere."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.search(r"\\|\0|^[A-Za-z]:", name):
        raise _unsafe(archive, name, "a path that leads outside of the folder")
    for part in (path, *path.parents):
        folded = unicodedata.normalize("NFC", str(part)).casefold()
        if spelled.setdefault(folded, str(part)) != str(part):
            raise _unsafe(archive, name, f"the same name as '{spelled[folded]}' on some disks")
    return path


def _members(file: IO[bytes], archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    limit = MAX_RATIO * os.fstat(file.fileno()).st_size
    if archive.suffix == ".zip":
        return _zip_members(file, archive, limit)
    return _tar_members(file, archive, limit)


def _zip_members(
    file: IO[bytes], archive: Path, limit: int
) -> Iterator[tuple[str, IO[bytes] | None]]:
    with zipfile.ZipFile(file) as opened:
        for info in opened.infolist():
            # zipfile reads no more of a member than its header says, so that sum is the bound.
            limit -= info.file_size
            if limit < 0:
                raise _unsafe(archive, info.filename, f"more than {MAX_RATIO} times its size")
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(archive, info.filename, "a link or a device")
            yield info.filename, None if info.is_dir() else opened.open(info)


def _tar_members(
    file: IO[bytes], archive: Path, limit: int
) -> Iterator[tuple[str, IO[bytes] | None]]:
    too_large = _unsafe(archive, archive.name, f"more than {MAX_RATIO} times its size")
    with (
        _Bounded(file, limit, too_large) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r:") as opened,
    ):
        for info in opened:
            if not info.isdir() and not info.isreg():
                raise _unsafe(archive, info.name, "a link or a device")
            yield info.name, opened.extractfile(info)


class _Bounded(gzip.GzipFile):
    """Decompress up to a limit; a small archive can promise more than memory or disk hold."""

    def __init__(self, file: IO[bytes], limit: int, too_large: UnsafeArchiveError) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._limit, self._too_large = limit, too_large

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= MAX_READ or self.tell() + size > self._limit:
            raise self._too_large
        return super().read(size)


def _unsafe(archive: Path, member: str, danger: str) -> UnsafeArchiveError:
    return UnsafeArchiveError(archive=str(archive), member=member, danger=danger)
