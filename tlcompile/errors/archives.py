"""A data set's archive is not as promised: fetched badly, changed, or not safe to unpack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import one_line
from tlcompile.errors.data import PATH_LIMIT, DataError, quoted, shown


@dataclass(eq=False, kw_only=True)
class DownloadError(DataError):
    """A data set's archive cannot be fetched."""

    slug: ClassVar[str] = "download"
    exit_code: ClassVar[int] = 1

    url: str
    archive: str
    cause: str

    def headline(self) -> str:
        return f"'{one_line(self.url, PATH_LIMIT)}' cannot be downloaded"

    def facts(self) -> dict[str, str]:
        return {"cause": one_line(self.cause, PATH_LIMIT)}

    def fix(self) -> str:
        return f"try again, or fetch it by hand:\ncurl -L -o {quoted(self.archive)} {self.url}"


@dataclass(eq=False, kw_only=True)
class ChecksumError(DataError):
    """An archive is not the one whose digest we know."""

    slug: ClassVar[str] = "checksum"
    exit_code: ClassVar[int] = 1

    archive: str
    found: str
    wanted: str
    published: bool  # else the wanted digest is that of the first download

    def headline(self) -> str:
        return f"archive '{shown(self.archive)}' is not the one we know"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"sha256 {self.found}",
            "wanted": f"sha256 {self.wanted}",
            "from": "its owner" if self.published else f"{shown(self.archive)}.sha256",
        }

    def fix(self) -> str:
        archive = quoted(self.archive)
        if self.published:
            return f"fetch it again: rm -f {archive}"
        note = quoted(f"{self.archive}.sha256")
        return f"if you trust the new one, forget the old:\nrm -f {archive} {note}"


@dataclass(eq=False, kw_only=True)
class UnsafeArchiveError(DataError):
    """An archive wants to write outside of its folder, or to fill the disk; nothing is kept."""

    slug: ClassVar[str] = "unsafe-archive"
    exit_code: ClassVar[int] = 1

    archive: str
    member: str
    danger: str

    def headline(self) -> str:
        return f"archive '{shown(self.archive)}' is not safe to unpack"

    def facts(self) -> dict[str, str]:
        return {"member": one_line(self.member, PATH_LIMIT), "found": self.danger}

    def fix(self) -> str:
        return f"delete it and fetch it from its owner: rm {quoted(self.archive)}"


@dataclass(eq=False, kw_only=True)
class UnpackError(DataError):
    """An archive ends early or does not decode; nothing is kept."""

    slug: ClassVar[str] = "unpack"
    exit_code: ClassVar[int] = 1

    archive: str
    cause: str

    def headline(self) -> str:
        return f"archive '{shown(self.archive)}' cannot be unpacked"

    def facts(self) -> dict[str, str]:
        return {"cause": one_line(self.cause, PATH_LIMIT)}

    def fix(self) -> str:
        return f"fetch it again: rm -f {quoted(self.archive)}"


@dataclass(eq=False, kw_only=True)
class DatasetDownloadError(DataError):
    """A data set that a library downloads cannot be fetched; nothing is kept."""

    slug: ClassVar[str] = "dataset-download"
    exit_code: ClassVar[int] = 1

    name: str
    cause: str

    def headline(self) -> str:
        return f"data set '{one_line(self.name)}' cannot be downloaded"

    def facts(self) -> dict[str, str]:
        return {"cause": one_line(self.cause, PATH_LIMIT)}

    def fix(self) -> str:
        return "try again with a connection; what was there before is kept"


@dataclass(eq=False, kw_only=True)
class IncompleteDatasetError(DataError):
    """A data set's folder is there and is not what its reader expects."""

    slug: ClassVar[str] = "incomplete-dataset"

    name: str
    folder: str
    cause: str

    def headline(self) -> str:
        return f"data set '{one_line(self.name)}' is not whole in '{shown(self.folder)}'"

    def facts(self) -> dict[str, str]:
        return {"cause": one_line(self.cause, PATH_LIMIT)}

    def fix(self) -> str:
        aside = f"{self.folder}.aside"
        return f"put it aside and fetch it again:\nmv {quoted(self.folder)} {quoted(aside)}"


@dataclass(eq=False, kw_only=True)
class MissingPackageError(DataError):
    """A data set's format wants a package that is not installed."""

    slug: ClassVar[str] = "missing-package"
    exit_code: ClassVar[int] = 2

    package: str
    needed_by: str
    install: str  # what pip is told

    def headline(self) -> str:
        return f"package '{one_line(self.package)}' is not installed"

    def facts(self) -> dict[str, str]:
        return {"wanted": f"for {one_line(self.needed_by)}"}

    def fix(self) -> str:
        return f"pip install '{self.install}'"
