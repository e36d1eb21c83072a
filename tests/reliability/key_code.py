"""A module that no graph can hold, as text: what it calls is a user's code, and is edited here."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType

from reliability.key_world import Net, Pair, Wanted, compiled, sets_of
from tlcompile.model.compiled import CompiledModel
from tlcompile.zoo.preprocessing import Preprocessing

HELPERS = """
def bend(x):
    return x.abs()

def straight(x):
    return x
"""

LEAF = '''
import functools
import torch
import torch.nn.functional as F
from torch import nn
import key_helpers

SCALE = 2.0
CHOSEN = {"x", "y"}

def gate(x, by=1.5, *, offset=0.25):
    return x * by + offset

def maker(amount):
    def add(x):
        return x + amount
    return add

def twice(function):
    @functools.wraps(function)
    def run(self, x):
        return function(self, function(self, x))
    return run

added = maker(1)
gate.extra = 1.0

class Base(nn.Module):
    def before(self, x):
        return x - 1

class Leaf(Base):
    power = 1.0

    def __init__(self):
        super().__init__()
        self.weight = 0.5
        self.table = {"a": [1, 2], "b": (3.0,)}
        self.inner = nn.Identity()
        self.chosen = CHOSEN

    @property
    def share(self):
        return 0.5

    @staticmethod
    def fixed(x):
        return x + 3

    @twice
    def wrapped(self, x):
        return x * self.share

    def middle(self, x, *rest):
        try:
            x = gate(x)
            x = x * self.power
        except ValueError:
            return x
        return x * SCALE * self.weight

    def forward(self, x):
        """Do as the text says."""
        if x.shape[0] > 10**9:  # a question, so this is one vertex
            x = x + 1
        y = self.inner(added(self.before(x)))
        y = self.fixed(self.wrapped(y))
        y = key_helpers.bend(y) + gate.extra
        return F.relu(self.middle(y))
'''

# What is replaced in the text, and by what; with "helpers" in the file that the module imports.
MISSES = {
    "forward, a constant": ("x = x + 1\n", "x = x + 2\n"),
    "forward, another function of torch": ("F.relu(", "F.relu6("),
    "forward, the order of steps": ("self.fixed(self.wrapped(y))", "self.wrapped(self.fixed(y))"),
    "a function that it calls": ("x * by + offset", "x * by - offset"),
    "a default value": ("by=1.5", "by=1.25"),
    "a default value by name": ("offset=0.25", "offset=0.5"),
    "a value of a closure": ("maker(1)", "maker(2)"),
    "an attribute of a function": ("gate.extra = 1.0", "gate.extra = 2.0"),
    "a constant of the file": ("SCALE = 2.0", "SCALE = 3.0"),
    "a method of the class above": ("return x - 1", "return x - 2"),
    "an attribute of the class": ("power = 1.0", "power = 2.0"),
    "a property": ("return 0.5", "return 0.75"),
    "a static method": ("x + 3", "x + 4"),
    "a decorated method": ("x * self.share", "x / self.share"),
    "a decorator": ("function(self, function(self, x))", "function(self, x)"),
    "what is caught": ("except ValueError", "except ArithmeticError"),
    "what is guarded": (
        "            x = x * self.power\n        except ValueError:\n            return x\n",
        "        except ValueError:\n            return x\n        else:\n            x = x * self.power\n",
    ),
    "arguments: one or many": ("def middle(self, x, *rest)", "def middle(self, x, **rest)"),
    "the order of arguments": ("def gate(x, by=1.5", "def gate(by=1.5, x=0.0"),
    "a number of the module": ("self.weight = 0.5", "self.weight = 0.25"),
    "a number in a table of the module": ('"b": (3.0,)', '"b": (4.0,)'),
    "the order of a table": ('"a": [1, 2], "b": (3.0,)', '"b": (3.0,), "a": [1, 2]'),
    "a member of a set": ('{"x", "y"}', '{"x", "z"}'),
    "a module inside": ("nn.Identity()", "nn.Tanh()"),
    "helpers: a function of another file": ("return x.abs()", "return -x.abs()"),
}
HITS = {
    "a comment": ("# a question, so this is one vertex", "# another comment"),
    "a docstring": ("Do as the text says.", "Say something else."),
    "lines moved": ("SCALE = 2.0", "\n\n\nSCALE = 2.0"),
    "a local name": ("y", "why"),
    "a function that nothing calls": ("SCALE = 2.0", "SCALE = 2.0\ndef unused():\n    return 1\n"),
    "helpers: a function that nothing calls": ("return x\n", "return 2 * x\n"),
    "a set in another order": ('{"x", "y"}', '{"y", "x"}'),
}


def code_pair(name: str) -> Pair:
    """Compare the module with itself after an edit of its text, or of its helpers' text."""
    return plain_code(), sets_of(*with_code(*edited_texts(name)))


def edited_texts(name: str) -> tuple[str, str]:
    """Return the two files, one of them edited."""
    old, new = {**MISSES, **HITS}[name]
    of_helpers = name.startswith("helpers")
    before = HELPERS if of_helpers else LEAF
    local = name == "a local name"
    after = _other_local_names(before) if local else before.replace(old, new)
    assert after != before, f"nothing is edited: {name}"
    return (after, LEAF) if of_helpers else (HELPERS, after)


def _other_local_names(text: str) -> str:
    return text.replace("        y = ", "        value = ").replace("(y)", "(value)")


@cache
def plain_code() -> Wanted:
    return sets_of(*with_code(HELPERS, LEAF))


@cache
def with_code(helpers: str, leaf: str) -> tuple[CompiledModel, Preprocessing]:
    """Compile a network whose activation is the class that a text defines."""
    _load("key_helpers", helpers)
    model, preprocessing, _ = compiled(Net(_load("key_leaf", leaf).Leaf()))
    return model, preprocessing


def _load(name: str, text: str) -> ModuleType:
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"{name}.py", "exec"), vars(module))
    return module
