"""A layer of `add` cannot be had: its initialiser does not fit, or its plug-in is not allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from tlcompile.errors.base import did_you_mean, listed
from tlcompile.errors.graph import GraphError
from tlcompile.errors.recipe import RecipeError


@dataclass(eq=False, kw_only=True)
class InitRefusedError(GraphError):
    """An initialiser does not fit the shape of the weight."""

    slug: ClassVar[str] = "init-refused"

    init: str
    shape: tuple[int, ...]
    reason: str

    def headline(self) -> str:
        sizes = " x ".join(map(str, self.shape))
        return f"init {self.init} cannot fill a weight of {sizes}"

    def facts(self) -> dict[str, str]:
        return {"found": self.reason, "wanted": "an initialiser for weights of this shape"}

    def fix(self) -> str:
        return "write init: kaiming_normal, or drop init"


@dataclass(eq=False, kw_only=True)
class PluginNotInstalledError(RecipeError):
    """The command line allows a plug-in that is not there."""

    slug: ClassVar[str] = "plugin-not-installed"

    name: str
    installed: tuple[str, ...]

    def headline(self) -> str:
        return f"no installed package has a layer '{self.name}'"

    def facts(self) -> dict[str, str]:
        found = f"plug-ins installed: {listed(self.installed) or 'none'}"
        return {"found": found, "wanted": "a package with an entry point in tlcompile.layers"}

    def fix(self) -> str:
        install = f"install the package that brings it, or drop --allow-plugin {self.name}"
        return did_you_mean(self.name, self.installed, install)


@dataclass(eq=False, kw_only=True)
class BadPluginError(RecipeError):
    """A plug-in is installed and is no layer type."""

    slug: ClassVar[str] = "bad-plugin"

    name: str
    package: str
    reason: str

    def headline(self) -> str:
        return f"the plug-in '{self.name}' of {self.package} is no layer type"

    def facts(self) -> dict[str, str]:
        return {
            "found": self.reason,
            "wanted": "a subclass of tlcompile.recipe.layers.base.Layer with its own `layer` word",
        }

    def fix(self) -> str:
        return f"mend {self.package}, or drop --allow-plugin {self.name}"
