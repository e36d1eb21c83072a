"""Images, folders and archives are not as promised: the user mends the data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import LIST_LIMIT, TLCompileError, did_you_mean, listed, one_line

PATH_LIMIT = 400  # characters; a shortened path cannot be pasted
LAYOUT = "train/<class>/... and val/<class>/..., or <class>/... alone"


def _path(path: str) -> str:
    return one_line(path, PATH_LIMIT)


def _quoted(path: str) -> str:
    return shlex.quote(_path(path))


@dataclass(eq=False, kw_only=True)
class DataError(TLCompileError):
    """Images or folders are not as promised."""


@dataclass(eq=False, kw_only=True)
class MissingFolderError(DataError):
    """A folder is not there, or is a file; `near` are paths that are there."""

    slug: ClassVar[str] = "missing-folder"
    exit_code: ClassVar[int] = 2

    path: str
    near: tuple[str, ...]

    def headline(self) -> str:
        return f"there is no folder '{_path(self.path)}'"

    def facts(self) -> dict[str, str]:
        return {"near": listed([_path(path) for path in self.near])} if self.near else {}

    def fix(self) -> str:
        if self.near:
            return f"did you mean '{_path(self.near[0])}'?"
        return "name the folder from the current directory on, or from / on"


@dataclass(eq=False, kw_only=True)
class EmptyClassError(DataError):
    """A class folder to train on holds no image."""

    slug: ClassVar[str] = "empty-class"

    folder: str
    classname: str

    def headline(self) -> str:
        return f"class '{one_line(self.classname)}' has no image in '{_path(self.folder)}'"

    def facts(self) -> dict[str, str]:
        return {"wanted": "at least one .jpg, .jpeg, .png, .webp, .bmp, .tif or .tiff file"}

    def fix(self) -> str:
        # Hidden folders are no classes, and nothing is lost of what may lie in this one.
        parent, _, name = self.folder.rpartition("/")
        return f"add images, or hide it:\nmv {_quoted(self.folder)} {_quoted(f'{parent}/.{name}')}"


@dataclass(eq=False, kw_only=True)
class NoImagesError(DataError):
    """A data folder holds no class folder with an image in it."""

    slug: ClassVar[str] = "no-images"

    path: str
    loose: int  # images that lie in the folder itself, in no class

    def headline(self) -> str:
        return f"'{_path(self.path)}' has no class folders with images"

    def facts(self) -> dict[str, str]:
        return {"found": f"images outside of any class folder: {self.loose}", "wanted": LAYOUT}

    def fix(self) -> str:
        return f"make one folder a class, as in {_quoted(self.path + '/ants/1.jpg')}"


@dataclass(eq=False, kw_only=True)
class UnknownClassError(DataError):
    """A split or `data.classes` names classes that the training split does not have."""

    slug: ClassVar[str] = "unknown-class"

    names: tuple[str, ...]
    classes: tuple[str, ...]
    place: str

    def headline(self) -> str:
        return f"class '{one_line(self.names[0])}' of {_path(self.place)} is not a training class"

    def facts(self) -> dict[str, str]:
        return {
            "unknown": listed([one_line(name) for name in self.names]),
            "training": listed([one_line(name) for name in self.classes]),
        }

    def fix(self) -> str:
        otherwise = f"give '{one_line(self.names[0])}' training images, or leave it out"
        return did_you_mean(self.names[0], self.classes, otherwise)


@dataclass(eq=False, kw_only=True)
class UnreadableImagesError(DataError):
    """Files that should be images cannot be decoded; all of them at once, as (path, reason)."""

    slug: ClassVar[str] = "unreadable-images"

    images: tuple[tuple[str, str], ...]

    def headline(self) -> str:
        if len(self.images) == 1:
            return f"image '{_path(self.images[0][0])}' cannot be read"
        return f"{len(self.images)} images cannot be read"

    def facts(self) -> dict[str, str]:
        shown = [f"{_path(path)}: {one_line(reason)}" for path, reason in self.images]
        if len(shown) > LIST_LIMIT:
            shown[LIST_LIMIT:] = [f"... ({len(shown)} in all)"]
        return {"found": "\n".join(shown)}

    def fix(self) -> str:
        moves = [f"mv {_quoted(path)} {_quoted(path + '.bad')}" for path, _ in self.images]
        return "\n".join(["mend them, or put them aside:", *moves[:LIST_LIMIT]])

    def reason(self) -> str:
        """Say why the first image cannot be read, without its path."""
        return self.images[0][1]


@dataclass(eq=False, kw_only=True)
class UnsupportedImageError(DataError):
    """A sound image whose pixels cannot become 8 bits without a guess."""

    slug: ClassVar[str] = "unsupported-image"

    path: str
    mode: str

    def headline(self) -> str:
        return f"image '{_path(self.path)}' has pixels of mode '{self.mode}'"

    def facts(self) -> dict[str, str]:
        return {
            "found": "32-bit or other pixels, with no one way to 8 bits",
            "wanted": "8 bits a channel (grey, RGB, RGBA, CMYK, palette) or 16-bit grey",
        }

    def fix(self) -> str:
        return "save it as an 8-bit PNG, scaled from the range that its pixels really have"

    def reason(self) -> str:
        """Say why the image is refused, without its path."""
        return f"pixels of mode '{self.mode}' have no one way to 8 bits"


@dataclass(eq=False, kw_only=True)
class TooManyPixelsError(DataError):
    """An image's header promises more pixels than we decode; it may be a decompression bomb."""

    slug: ClassVar[str] = "too-many-pixels"

    path: str
    size: str  # "width x height", or what is known of it
    limit: int

    def headline(self) -> str:
        return f"image '{_path(self.path)}' is too large to decode"

    def facts(self) -> dict[str, str]:
        return {"found": f"{self.size} pixels", "wanted": f"at most {self.limit} pixels"}

    def fix(self) -> str:
        aside = f"mv {_quoted(self.path)} {_quoted(self.path + '.bad')}"
        return f"make it smaller, or put it aside:\n{aside}"

    def reason(self) -> str:
        """Say why the image is refused, without its path."""
        return f"{self.size} pixels, more than {self.limit}"


@dataclass(eq=False, kw_only=True)
class MixedSizesError(DataError):
    """Images differ in size after preprocessing, so they do not stack."""

    slug: ClassVar[str] = "mixed-sizes"

    path: str
    found: tuple[int, ...]
    wanted: tuple[int, ...]

    def headline(self) -> str:
        return f"image '{_path(self.path)}' has another size than the ones before it"

    def facts(self) -> dict[str, str]:
        return {"found": _shape(self.found), "wanted": _shape(self.wanted)}

    def fix(self) -> str:
        return "use preprocessing that crops to one size"


def _shape(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


@dataclass(eq=False, kw_only=True)
class TooFewImagesError(DataError):
    """`data.per_class` asks for more images than some classes have, given as (class, images)."""

    slug: ClassVar[str] = "too-few-images"

    wanted: int
    counts: tuple[tuple[str, int], ...]

    def headline(self) -> str:
        name, count = self.counts[0]
        return f"class '{one_line(name)}' has {count} of the {self.wanted} images asked for"

    def facts(self) -> dict[str, str]:
        found = [f"{one_line(name)} {count}" for name, count in self.counts]
        return {"found": listed(found), "wanted": f"{self.wanted} a class"}

    def fix(self) -> str:
        fewest = min(count for _, count in self.counts)
        if fewest == 0:
            return "leave the classes without images out, by data.classes"
        return f"write per_class: {fewest}"


@dataclass(eq=False, kw_only=True)
class UnknownDatasetError(DataError):
    """The recipe names a data set that we do not know."""

    slug: ClassVar[str] = "unknown-dataset"
    exit_code: ClassVar[int] = 2

    name: str
    names: tuple[str, ...]

    def headline(self) -> str:
        return f"there is no data set '{one_line(self.name)}'"

    def facts(self) -> dict[str, str]:
        return {"data sets": listed(self.names)}

    def fix(self) -> str:
        otherwise = "for images of your own write data: {folder: <path>}"
        return did_you_mean(self.name, self.names, otherwise)


@dataclass(eq=False, kw_only=True)
class UnknownAugmentationError(DataError):
    """The recipe names an augmentation that we do not know."""

    slug: ClassVar[str] = "unknown-augmentation"
    exit_code: ClassVar[int] = 2

    name: str
    names: tuple[str, ...]

    def headline(self) -> str:
        return f"there is no augmentation '{one_line(self.name)}'"

    def facts(self) -> dict[str, str]:
        return {"augmentations": listed(self.names)}

    def fix(self) -> str:
        return did_you_mean(self.name, self.names, f"write one of {listed(self.names)}")


@dataclass(eq=False, kw_only=True)
class UnsupportedPreprocessingError(DataError):
    """The weights want their input prepared in a way that is not images in, one tensor out."""

    slug: ClassVar[str] = "unsupported-preprocessing"
    exit_code: ClassVar[int] = 2

    weights: str
    preset: str

    def headline(self) -> str:
        return f"weights '{self.weights}' want input that tlcompile cannot prepare"

    def facts(self) -> dict[str, str]:
        return {
            "found": self.preset,
            "wanted": "ImageClassification, SemanticSegmentation or VideoClassification",
        }

    def fix(self) -> str:
        return "pick the weights of a classification, segmentation or video model"


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
        return f"try again, or fetch it by hand:\ncurl -L -o {_quoted(self.archive)} {self.url}"


@dataclass(eq=False, kw_only=True)
class ChecksumError(DataError):
    """An archive is not the one whose digest we know."""

    slug: ClassVar[str] = "checksum"

    archive: str
    found: str
    wanted: str
    published: bool  # else the wanted digest is that of the first download

    def headline(self) -> str:
        return f"archive '{_path(self.archive)}' is not the one we know"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"sha256 {self.found}",
            "wanted": f"sha256 {self.wanted}",
            "from": "its owner" if self.published else f"{_path(self.archive)}.sha256",
        }

    def fix(self) -> str:
        archive = _quoted(self.archive)
        if self.published:
            return f"fetch it again: rm -f {archive}"
        note = _quoted(f"{self.archive}.sha256")
        return f"if you trust the new one, forget the old:\nrm -f {archive} {note}"


@dataclass(eq=False, kw_only=True)
class UnsafeArchiveError(DataError):
    """An archive wants to write outside of its folder, or to fill the disk; nothing is kept."""

    slug: ClassVar[str] = "unsafe-archive"

    archive: str
    member: str
    danger: str

    def headline(self) -> str:
        return f"archive '{_path(self.archive)}' is not safe to unpack"

    def facts(self) -> dict[str, str]:
        return {"member": one_line(self.member, PATH_LIMIT), "found": self.danger}

    def fix(self) -> str:
        return f"delete it and fetch it from its owner: rm {_quoted(self.archive)}"


@dataclass(eq=False, kw_only=True)
class UnpackError(DataError):
    """An archive ends early or does not decode; nothing is kept."""

    slug: ClassVar[str] = "unpack"

    archive: str
    cause: str

    def headline(self) -> str:
        return f"archive '{_path(self.archive)}' cannot be unpacked"

    def facts(self) -> dict[str, str]:
        return {"cause": one_line(self.cause, PATH_LIMIT)}

    def fix(self) -> str:
        return f"fetch it again: rm -f {_quoted(self.archive)}"
