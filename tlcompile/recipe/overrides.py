"""The command line's `key=value`, and what it does to a recipe.

    freeze.upto=layer3                              one value
    fine_tune.optimizer.lr=1e-3,1e-4                a sweep; so are choice(...), range(...)
    add.classifier.6.out=7                          the name is found in the recipe: no brackets
    resize[classifier.3].out=512                    brackets make one key of a name with dots
    fine_tune.optimizer={name: adamw, lr: 1e-3}     carries the tag `name`, so it replaces
    fine_tune.optimizer={lr: 1e-3}                  any other mapping merges; {} empties
    ~remove.classifier.6                            deletes

Knows nothing of Hydra: hydra_text.py carries overrides through it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from tlcompile.errors.base import Span, TLCompileError, nearest, raise_problems
from tlcompile.errors.recipe import (
    OverrideKeyError,
    OverrideSyntaxError,
    RecipeError,
    RecipeTooBigError,
)
from tlcompile.recipe.flow import FlowReader
from tlcompile.recipe.nodes import (
    MAX_LEVELS,
    NOWHERE,
    Entry,
    Mapping,
    Node,
    Scalar,
    Sequence,
    key_problem,
)
from tlcompile.recipe.scalars import resolve
