"""A user's own layers: entry points of installed packages, allowed by name on the command line.

A recipe may use the word of a plug-in under `layer`; it never names a class or a path, and without
the user's own `--allow-plugin NAME` the word is refused and no code of the package runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args

from tlcompile.errors.layers import BadPluginError, PluginNotInstalledError
from tlcompile.recipe.layers.base import Layer

GROUP = "tlcompile.layers"


@dataclass(frozen=True)
class Plugin:
    """A layer type of an installed package.

    Attributes:
        name: The word under `layer`.
        package: The distribution that brings it.
        version: Of the distribution.
        kind: The layer type.
    """

    name: str
    package: str
    version: str
    kind: type[Layer]


_ALLOWED: dict[str, Plugin] = {}


def allow_plugins(names: Iterable[str]) -> None:
    """Allow these plug-ins from now on, and no others; their code is imported here.

    Raises:
        PluginNotInstalledError: No installed package has an entry point of this name.
        BadPluginError: It cannot be imported, or is no layer type of this name.
    """
    _ALLOWED.clear()
    _ALLOWED.update({name: _load(name) for name in names})


def allowed_plugins() -> dict[str, Plugin]:
    """Return what is allowed, by name."""
    return dict(_ALLOWED)


def plugin_packages(name: str) -> list[str]:
    """Return the installed distributions that bring a layer of this name; nothing is imported."""
    return sorted(_package(entry) for entry in entry_points(group=GROUP, name=name))


def _load(name: str) -> Plugin:
    found = entry_points(group=GROUP, name=name)
    packages = plugin_packages(name)
    if not packages:
        installed = tuple(sorted(entry_points(group=GROUP).names))
        raise PluginNotInstalledError(name=name, installed=installed)
    if len(packages) > 1:
        reason = "several packages bring a layer of this name"
        raise BadPluginError(name=name, package=" and ".join(packages), reason=reason)
    (entry,) = found
    try:
        kind = entry.load()
    except Exception as cause:
        reason = f"{type(cause).__name__}: {cause}"
        raise BadPluginError(name=name, package=packages[0], reason=reason) from cause
    if not (isinstance(kind, type) and issubclass(kind, Layer)):
        raise BadPluginError(name=name, package=packages[0], reason=f"{entry.value} is no Layer")
    if _words(kind) != (name,):
        reason = f"its field is not `layer: Literal['{name}']`"
        raise BadPluginError(name=name, package=packages[0], reason=reason)
    version = entry.dist.version if entry.dist else "unknown"
    return Plugin(name, packages[0], version, kind)


def _words(kind: type[Layer]) -> tuple[Any, ...]:
    field = kind.model_fields.get("layer")
    return get_args(field.annotation) if field is not None else ()


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else entry.value.partition(":")[0]
