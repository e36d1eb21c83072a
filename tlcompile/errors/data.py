"""Images, folders and archives are not as promised: the user mends the data."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import LIST_LIMIT, TLCompileError, did_you_mean, listed, one_line

PATH_LIMIT = 400  # characters; a shortened path cannot be pasted
LAYOUT = "train/<class>/... and val/<class>/..., or <class>/... alone"


def shown(path: str) -> str:
    """Show a path in one line, long enough to be pasted."""
    return one_line(path, PATH_LIMIT)


def quoted(path: str) -> str:
    """Quote a path for a shell."""
    return shlex.quote(shown(path))


@dataclass(eq=False, kw_only=True)
class DataError(TLCompileError):
    """Images or folders are not as promised."""

    exit_code: ClassVar[int] = 2  # as all that the recipe names and that is wrong or missing


@dataclass(eq=False, kw_only=True)
class MissingFolderError(DataError):
    """A folder is not there, or is a file; `near` are paths that are there."""

    slug: ClassVar[str] = "missing-folder"

    path: str
    near: tuple[str, ...]

    def headline(self) -> str:
        return f"there is no folder '{shown(self.path)}'"

    def facts(self) -> dict[str, str]:
        return {"near": listed([shown(path) for path in self.near])} if self.near else {}

    def fix(self) -> str:
        if self.near:
            return f"did you mean '{shown(self.near[0])}'?"
        return "name the folder from the current directory on, or from / on"


@dataclass(eq=False, kw_only=True)
class EmptyClassError(DataError):
    """A class folder to train on holds no image."""

    slug: ClassVar[str] = "empty-class"

    folder: str
    classname: str

    def headline(self) -> str:
        return f"class '{one_line(self.classname)}' has no image in '{shown(self.folder)}'"

    def facts(self) -> dict[str, str]:
        return {"wanted": "at least one .jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff or .gif file"}

    def fix(self) -> str:
        # Hidden folders are no classes, and nothing is lost of what may lie in this one.
        parent, _, name = self.folder.rpartition("/")
        return f"add images, or hide it:\nmv {quoted(self.folder)} {quoted(f'{parent}/.{name}')}"


@dataclass(eq=False, kw_only=True)
class NoImagesError(DataError):
    """A data folder holds no class folder with an image in it."""

    slug: ClassVar[str] = "no-images"

    path: str
    loose: int  # images that lie in the folder itself, in no class

    def headline(self) -> str:
        return f"'{shown(self.path)}' has no class folders with images"

    def facts(self) -> dict[str, str]:
        return {"found": f"images outside of any class folder: {self.loose}", "wanted": LAYOUT}

    def fix(self) -> str:
        return f"make one folder a class, as in {quoted(self.path + '/ants/1.jpg')}"


@dataclass(eq=False, kw_only=True)
class UnknownClassError(DataError):
    """A split or `data.classes` names classes that the training split does not have."""

    slug: ClassVar[str] = "unknown-class"

    names: tuple[str, ...]
    classes: tuple[str, ...]
    place: str  # a key of the recipe, or the folder of a split
    is_folder: bool = False

    def headline(self) -> str:
        return f"class '{one_line(self.names[0])}' of {shown(self.place)} is not a training class"

    def facts(self) -> dict[str, str]:
        return {
            "unknown": listed([one_line(name) for name in self.names]),
            "training": listed([one_line(name) for name in self.classes]),
        }

    def fix(self) -> str:
        name = self.names[0]
        otherwise = f"give '{one_line(name)}' training images, or leave it out"
        if self.is_folder:  # hidden folders are no classes
            aside = f"mv {quoted(f'{self.place}/{name}')} {quoted(f'{self.place}/.{name}')}"
            otherwise = f"give '{one_line(name)}' training images, or hide it:\n{aside}"
        return did_you_mean(self.names[0], self.classes, otherwise)


@dataclass(eq=False, kw_only=True)
class UnreadableImagesError(DataError):
    """Files that should be images cannot be decoded; all of them at once, as (path, reason)."""

    slug: ClassVar[str] = "unreadable-images"

    images: tuple[tuple[str, str], ...]

    def headline(self) -> str:
        if len(self.images) == 1:
            return f"image '{shown(self.images[0][0])}' cannot be read"
        return f"{len(self.images)} images cannot be read"

    def facts(self) -> dict[str, str]:
        lines = [f"{shown(path)}: {one_line(reason)}" for path, reason in self.images]
        if len(lines) > LIST_LIMIT:
            lines[LIST_LIMIT:] = [f"... ({len(lines)} in all)"]
        return {"found": "\n".join(lines)}

    def fix(self) -> str:
        moves = [f"mv {quoted(path)} {quoted(path + '.bad')}" for path, _ in self.images]
        return "\n".join(["mend them, or put them aside:", *moves[:LIST_LIMIT]])

    def reason(self) -> str:
        """Say why the first image cannot be read, without its path."""
        return self.images[0][1]


@dataclass(eq=False, kw_only=True)
class ImageChangedError(DataError):
    """An image is not the one that was hashed when the run began."""

    slug: ClassVar[str] = "image-changed"
    exit_code: ClassVar[int] = 1

    path: str
    found: str
    wanted: str

    def headline(self) -> str:
        return f"image '{shown(self.path)}' changed while it was used"

    def facts(self) -> dict[str, str]:
        return {"found": f"sha256 {self.found}", "wanted": f"sha256 {self.wanted}"}

    def fix(self) -> str:
        return "run the same command again; it reads the image anew"


@dataclass(eq=False, kw_only=True)
class UnsupportedImageError(DataError):
    """A sound image whose pixels cannot become 8 bits without a guess."""

    slug: ClassVar[str] = "unsupported-image"

    path: str
    mode: str

    def headline(self) -> str:
        return f"image '{shown(self.path)}' has pixels of mode '{self.mode}'"

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
        return f"image '{shown(self.path)}' is too large to decode"

    def facts(self) -> dict[str, str]:
        return {"found": f"{self.size} pixels", "wanted": f"at most {self.limit} pixels"}

    def fix(self) -> str:
        aside = f"mv {quoted(self.path)} {quoted(self.path + '.bad')}"
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
        return f"image '{shown(self.path)}' has another size than the ones before it"

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
class ViewCountError(DataError):
    """Flips alone make a fixed number of views; the recipe asks for another."""

    slug: ClassVar[str] = "view-count"

    names: tuple[str, ...]
    found: int
    wanted: int

    def headline(self) -> str:
        return f"{listed(self.names)} alone make {self.wanted} views of an image, not {self.found}"

    def facts(self) -> dict[str, str]:
        return {
            "found": f"features.views: {self.found}",
            "wanted": f"{self.wanted}: the image as it is, and each flip once",
        }

    def fix(self) -> str:
        return (
            f"write features: {{views: {self.wanted}}},"
            " or features: {cache: off} without views, which draws flips in every epoch"
        )


@dataclass(eq=False, kw_only=True)
class UnsupportedPreprocessingError(DataError):
    """The weights want their input prepared in a way that is not images in, one tensor out."""

    slug: ClassVar[str] = "unsupported-preprocessing"

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
