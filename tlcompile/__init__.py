"""tlcompile: a declarative YAML-to-model compiler for transfer learning in PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlcompile.bundle import Bundle as Bundle
    from tlcompile.bundle import load_bundle as load_bundle
    from tlcompile.compiler import compile_recipe as compile_recipe
    from tlcompile.errors.base import TLCompileError as TLCompileError
    from tlcompile.features.rows import Features as Features
    from tlcompile.model.compiled import CompiledModel as CompiledModel
    from tlcompile.recipe.load import load_recipe as load_recipe
    from tlcompile.recipe.schema import Recipe as Recipe
    from tlcompile.run.api import train as train
    from tlcompile.run.feature_trainer import FeatureTrainer as FeatureTrainer

# Lazy (PEP 562): torch and torchvision take 1.3 to 2.3 s that `--help` need not pay.
_HOMES = {
    "Bundle": "tlcompile.bundle",
    "CompiledModel": "tlcompile.model.compiled",
    "FeatureTrainer": "tlcompile.run.feature_trainer",
    "Features": "tlcompile.features.rows",
    "Recipe": "tlcompile.recipe.schema",
    "TLCompileError": "tlcompile.errors.base",
    "compile_recipe": "tlcompile.compiler",
    "load_bundle": "tlcompile.bundle",
    "load_recipe": "tlcompile.recipe.load",
    "train": "tlcompile.run.api",
}
__all__ = [
    "Bundle",
    "CompiledModel",
    "FeatureTrainer",
    "Features",
    "Recipe",
    "TLCompileError",
    "compile_recipe",
    "load_bundle",
    "load_recipe",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tlcompile' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
