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

    archive: str
    cause: str

    def headline(self) -> str:
        return f"archive '{shown(self.archive)}' cannot be unpacked"

    def facts(self) -> dict[str, str]:
        return {"cause": one_line(self.cause, PATH_LIMIT)}

    def fix(self) -> str:
        return f"fetch it again: rm -f {quoted(self.archive)}"
