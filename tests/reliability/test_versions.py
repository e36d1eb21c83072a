"""Code that decides bits has a number in the keys: whoever changes the one looks at the other.

When a test fails here: if a bit of a result may have changed, count the number up. Then write the new
digest, which the failure shows.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tlcompile.data import augment, digits, images, transforms
from tlcompile.features import arithmetic, folded, graphed, hard, prefix
from tlcompile.graph import fold
from tlcompile.zoo import preprocessing

# For each number: the code behind it, and its digest under that number.
PINNED: dict[str, tuple[int, str, list[Any]]] = {
    "arithmetic.DECODER": (
        arithmetic.DECODER,
        "1 72223ccae2f14f0b",
        [
            images.decode_image,
            images._pixels,
            images._sixteen_bit,
            images._on_white,
            digits._decode,
            preprocessing.Preprocessing.pixels,
            preprocessing.Preprocessing.normalise,
            preprocessing.Preprocessing.with_channels,
        ],
    ),
    "arithmetic.CHUNKS": (arithmetic.CHUNKS, "1 ceeea9f993ea6115", [prefix.Prefix]),
    "arithmetic.HARDENING": (
        arithmetic.HARDENING,
        "1 a6fe6cc4ca61cab3",
        [hard, folded, graphed, fold],
    ),
    "augment.VERSION": (augment.VERSION, "1 d5e255b268612acb", [augment, transforms]),
}


def digest_of_code(code: Callable[..., Any]) -> str:
    """Return a digest of what code says, without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


@pytest.mark.parametrize("name", PINNED)
def test_a_change_of_code_looks_at_its_number(name: str) -> None:
    number, pinned, code = PINNED[name]
    found = hashlib.sha256("".join(map(digest_of_code, code)).encode()).hexdigest()[:16]
    assert f"{number} {found}" == pinned, f"read the docstring of {Path(__file__).name}"
