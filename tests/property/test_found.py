"""What random models found, each in its smallest form; checked as every drawn case is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from property.drawn import Description, Vertex
from property.recipes import Recipe
from property.test_valid_edits import check_case

CONV = Vertex("conv", "conv", ("x",), (3, 8, 8), module="conv", settings=(3, 3, 1, 1, 1, True))
FLAT = Vertex("flatten", "flatten", ("conv",), (192,))
RELU = Vertex("relu", "frelu", ("flatten",), (192,))
CAT = Vertex("cat", "cat", ("relu", "flatten"), (384,))
FC = Vertex("fc", "linear", ("cat",), (4,), module="fc", settings=(384, 4))
TANH = Vertex("tanh", "tanh", ("relu",), (192,), module="tanh")
DROP = Vertex("drop", "dropout", ("cat",), (384,), module="drop")
BRANCHES = Description((CONV, FLAT, RELU, CAT, FC), ("fc",))

# `conv` is overwritten by `conv += x`, and read again under its old name
OVERWRITTEN = Description(
    (
        CONV,
        Vertex("add", "add", ("conv", "x"), (3, 8, 8), in_place=True),
        Vertex("flatten", "flatten", ("conv",), (192,)),
        Vertex("fc", "linear", ("flatten",), (4,), module="fc", settings=(192, 4)),
    ),
    ("fc",),
)
SIZED = Description(
    (
        Vertex("size", "size", ("x",), ()),
        Vertex("reshape", "view", ("x", "size"), (192,)),
        Vertex("fc", "linear", ("reshape",), (4,), module="fc", settings=(192, 4)),
    ),
    ("fc",),
)
NONE: Recipe = {"freeze": {"upto": ["none"]}}

FOUND: dict[str, tuple[Description, Recipe]] = {
    "a tensor that is overwritten and read by its old name": (OVERWRITTEN, NONE),
    "a layer behind the classifier that head: auto replaces": (
        Description(
            (
                CONV,
                FLAT,
                Vertex("fc", "linear", ("flatten",), (4,), module="fc", settings=(192, 4)),
                Vertex("drop", "dropout", ("fc",), (4,), module="drop"),
            ),
            ("drop",),
        ),
        {
            **NONE,
            "head": "auto",
            "add": {
                "bn": {"layer": "batch_norm", "inputs": ["fc"], "feeds": ["half"]},
                "half": {"layer": "scale", "by": 0.5, "inputs": ["fc"], "feeds": ["drop"]},
            },
        },
    ),
    "a width that another added layer changes later": (
        Description((CONV, FLAT, RELU, CAT, DROP, replace(FC, reads=("drop",))), ("fc",)),
        {
            **NONE,
            "head": "keep",
            "remove": {"fc": "replace", "cat": "replace"},
            "add": {
                "aa": {"layer": "linear", "out": 5, "inputs": ["drop"]},
                "fc": {"layer": "linear", "out": 4, "inputs": ["aa"]},
                "cat": {"layer": "subset", "first": 0, "last": 9, "inputs": ["relu"]},
            },
        },
    ),
    "a branch that one line bypasses and the other drops": (
        Description((CONV, FLAT, RELU, TANH, replace(CAT, reads=("tanh", "flatten")), FC), ("fc",)),
        {**NONE, "remove": {"relu": "drop", "tanh": "bypass"}},
    ),
    "a layer that changes what an added one reads": (
        BRANCHES,
        {
            **NONE,
            "remove": {"fc": "replace"},
            "add": {
                "fc": {"layer": "linear", "out": 4, "inputs": ["cat"]},
                "new": {"layer": "scale", "by": 2.0, "inputs": ["flatten"], "feeds": ["relu"]},
            },
        },
    ),
    "a layer whose batch size alone is read": (
        SIZED,
        {**NONE, "add": {"new": {"layer": "scale", "by": 2.0, "inputs": ["x"], "feeds": ["size"]}}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOUND)
def test_found(name: str) -> None:
    description, recipe = FOUND[name]
    check_case((description, {"base": {"model": "own", "size": 8}, **recipe}))
