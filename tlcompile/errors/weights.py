"""Tensors do not fit, or cannot be had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import TLCompileError, did_you_mean, listed, nearest


@dataclass(eq=False, kw_only=True)
class WeightsError(TLCompileError):
    """Tensors do not fit, or cannot be had."""

    exit_code: ClassVar[int] = 2


@dataclass(eq=False, kw_only=True)
class UnknownModelError(WeightsError):
    """A base model that the zoo does not have."""

    slug: ClassVar[str] = "unknown-model"

    name: str
    models: tuple[str, ...]

    def headline(self) -> str:
        return f"the zoo has no base model '{self.name}'"

    def facts(self) -> dict[str, str]:
        near = nearest(self.name, self.models)
        return {"found": f"'{self.name}'", "wanted": listed(near or self.models)}

    def fix(self) -> str:
        return did_you_mean(self.name, self.models, "`tlcompile zoo` lists them all")


@dataclass(eq=False, kw_only=True)
class UnknownWeightsError(WeightsError):
    """Weights that this base model does not have."""

    slug: ClassVar[str] = "unknown-weights"

    model: str
    name: str
    weights: tuple[str, ...]

    def headline(self) -> str:
        return f"base model '{self.model}' has no weights '{self.name}'"

    def facts(self) -> dict[str, str]:
        known = ("default", "none", *self.weights)
        return {"found": f"'{self.name}'", "wanted": f"{listed(known)}, or a file's path"}

    def fix(self) -> str:
        see = "write default; a file ends in .safetensors or .pth"
        return did_you_mean(self.name, self.weights, see)


@dataclass(eq=False, kw_only=True)
class RandomFrozenError(WeightsError):
    """A base without weights is frozen: random features that never learn."""

    slug: ClassVar[str] = "random-and-frozen"

    model: str

    def headline(self) -> str:
        return f"'{self.model}' has no weights and is frozen"

    def facts(self) -> dict[str, str]:
        return {
            "found": "base.weights: none, and a freeze point",
            "wanted": "pretrained weights under what is frozen, or nothing frozen",
        }

    def fix(self) -> str:
        return "write freeze: none, or base: {weights: default}"


@dataclass(eq=False, kw_only=True)
class WeightsFileError(WeightsError):
    """A file of weights that is missing or cannot be read safely."""

    slug: ClassVar[str] = "weights-file"

    path: str
    reason: str
    near: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()  # files of weights, where it is a folder
    bundle: str = ""  # where it is a part of one

    def headline(self) -> str:
        return f"weights file '{self.path}' cannot be read"

    def facts(self) -> dict[str, str]:
        return {
            "found": self.reason,
            "wanted": "a .safetensors file, or a .pth that holds tensors alone",
        }

    def fix(self) -> str:
        if self.bundle:
            return f"go on from all of the run: base: {{run: '{self.bundle}'}}"
        if self.inside:
            return f"name a file of it: base.weights={self.inside[0]}"
        return did_you_mean(self.path, self.near, "check the path, and how the file was saved")


@dataclass(eq=False, kw_only=True)
class WeightsMismatchError(WeightsError):
    """A file's tensors are not the base model's."""

    slug: ClassVar[str] = "weights-mismatch"

    source: str
    model: str
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[str, ...]

    def headline(self) -> str:
        return f"the tensors of '{self.source}' are not those of '{self.model}'"

    def facts(self) -> dict[str, str]:
        rows = {"missing": self.missing, "unexpected": self.unexpected, "shapes": self.shapes}
        return {name: listed(values, 4) for name, values in rows.items() if values}

    def fix(self) -> str:
        return f"name the base.model that the file was saved from; '{self.model}' is another"


@dataclass(eq=False, kw_only=True)
class WrongDtypeError(WeightsError):
    """A user's own module is not in single precision."""

    slug: ClassVar[str] = "wrong-dtype"

    model: str
    found: str

    def headline(self) -> str:
        return f"the weights of '{self.model}' are not float32"

    def facts(self) -> dict[str, str]:
        return {"found": self.found, "wanted": "torch.float32"}

    def fix(self) -> str:
        return "pass base=module.float()"


@dataclass(eq=False, kw_only=True)
class NoDownloadError(WeightsError):
    """Weights that have to be downloaded, and could not be."""

    slug: ClassVar[str] = "no-download"
    exit_code: ClassVar[int] = 74

    model: str
    weights: str
    url: str
    reason: str

    def headline(self) -> str:
        return f"weights '{self.weights}' of '{self.model}' could not be downloaded"

    def facts(self) -> dict[str, str]:
        return {"found": self.reason, "from": self.url}

    def fix(self) -> str:
        return "connect to the network once, or name a file: base: {weights: path/to/file.pth}"


@dataclass(eq=False, kw_only=True)
class NotInstalledError(WeightsError):
    """A base model of a package that is not installed."""

    slug: ClassVar[str] = "not-installed"

    what: str
    extra: str

    def headline(self) -> str:
        return f"{self.what} needs {self.extra}, which is not installed"

    def facts(self) -> dict[str, str]:
        return {"found": f"no package '{self.extra}'", "wanted": f"the extra '{self.extra}'"}

    def fix(self) -> str:
        return f"pip install 'tlcompile[{self.extra}]'"
