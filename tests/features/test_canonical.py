"""Values and code written as plain JSON: equal where they do the same, in any process."""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
import weakref
from collections import deque
from enum import Enum
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torchvision import transforms

from tlcompile.features.canonical import Canonical, TensorDigests, digest_of


def written(value: Any) -> Any:
    plain = Canonical(TensorDigests()).value(value)
    assert json.loads(json.dumps(plain)) == plain, "plain JSON"
    return plain


def digest(value: Any) -> tuple[str, dict[str, str]]:
    """Return what a value is, with the code that it uses."""
    canonical = Canonical(TensorDigests())
    return digest_of(canonical.value(value)), canonical.code


class Colour(Enum):
    RED = 1
    BLUE = 2


class Slotted:
    __slots__ = ("a",)

    def __init__(self, a: int) -> None:
        self.a = a


class Held:
    def __init__(self, **held: Any) -> None:
        self.__dict__.update(held)


class Tells(Held):
    def __repr__(self) -> str:
        return "always the same"


class Fails:
    def __repr__(self) -> str:
        raise OSError


def test_what_differs_is_written_differently() -> None:
    values: list[Any] = [
        *(None, True, 1, 1.0, "1", b"1", (1,), [1], {1}, frozenset({1}), {1: 1}, {1: 1, 2: 2}),
        *(-0.0, 0.0, float("nan"), float("inf"), float("-inf"), 1j, range(3), range(4), ...),
        *(Colour.RED, Colour.BLUE, Slotted(1), Slotted(2), Held(a=1), Held(a=2), Held(b=1)),
        *(Tells(a=1), Tells(a=2), np.float32(1), np.float64(1), np.ones(2), np.ones((1, 2))),
        *(torch.float32, torch.float16, torch.device("cpu"), torch.Size([1]), int, float),
        *(torch.ones(2), torch.ones(1, 2), torch.ones(2, dtype=torch.int32), torch.zeros(2)),
        *(nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh(), nn.Linear(1, 1), functools.partial(max, 1)),
        *(
            functools.partial(max, 2),
            "a".join,
            "b".join,
            max,
            min,
            torch.relu,
            torch.sin,
            torch,
            np,
        ),
        *(nn.Sequential(nn.Tanh()), nn.Sequential(nn.Tanh(), nn.Tanh())),
    ]
    assert len({digest_of(written(value)) for value in values}) == len(values)


def test_the_order_of_a_dictionary_counts_and_that_of_a_set_does_not() -> None:
    assert written({"a": 1, "b": 2}) != written({"b": 2, "a": 1})
    words = [f"word {n}" for n in range(20)]
    backwards = [*words[::-1]]
    assert written(set(words)) == written(set(backwards))


def test_addresses_do_not_count() -> None:
    for make in (object, threading.Lock, lambda: iter([1]), lambda: Held(a=object()), Fails):
        kept = [make() for _ in range(2)]
        assert written(kept[0]) == written(kept[1])


def test_a_value_that_holds_itself_ends() -> None:
    one, other = Held(name="a"), Held(name="a")
    one.held, other.held = {"up": [one]}, {"up": [other]}
    assert written(one) == written(other)
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    written(deep)


def test_what_a_logger_holds_does_not_count() -> None:
    logger = logging.getLogger("tests.canonical")
    before = written(logger)
    logger.addHandler(logging.NullHandler())
    assert written(logger) == before


def test_a_weak_reference_holds_nothing() -> None:
    held = Held()
    reference = weakref.ref(held)
    before = written(reference)
    del held
    assert written(reference) == before


def test_what_a_cached_property_keeps_does_not_count() -> None:
    class Cached(nn.Module):
        @functools.cached_property
        def table(self) -> list[int]:
            return [1]

    module = Cached()
    before = written(module)
    assert module.table == [1]
    assert written(module) == before


def test_a_tensor_that_cannot_be_seen_whole_is_never_the_same() -> None:
    for tensor in (torch.eye(2).to_sparse(), torch.ones(2, device="meta")):
        assert written(tensor) != written(tensor)


def test_a_scripted_module_is_never_the_same() -> None:
    """Neither its code nor its attributes can be looked into."""
    canonical = Canonical(TensorDigests())
    script = object.__new__(torch.jit.ScriptModule)
    assert canonical.module(script) != canonical.module(script)


def test_a_tensor_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    digests, tensor = TensorDigests(), nn.Parameter(torch.ones(2))
    first = digests(tensor)
    monkeypatch.setattr("tlcompile.features.canonical._tensor", None)
    assert digests(tensor) is first


def test_functions_of_one_name_are_told_apart() -> None:
    canonical = Canonical(TensorDigests())
    adders = [lambda x, by=by: x + by for by in (1, 2)]
    names = [canonical.named(adder) for adder in adders]
    assert len(set(names)) == 2
    assert len(set(canonical.code.values())) == 2


def test_a_function_that_calls_itself_ends() -> None:
    def down(n: int) -> int:
        return n and down(n - 1)

    assert written(down) == {"code": f"{__name__}.{down.__qualname__}"}


def test_code_of_a_library_stands_by_its_name() -> None:
    canonical = Canonical(TensorDigests())
    for value in (nn.functional.relu, nn.MultiheadAttention(4, 2), json.dumps, torch.no_grad):
        canonical.value(value)
    assert canonical.code == {}
    canonical.value(np.linalg.norm)
    assert canonical.libraries == {"numpy": np.__version__}


def test_a_function_that_takes_the_name_of_a_library_is_looked_into() -> None:
    def wrapping(by: int) -> Any:
        @functools.wraps(nn.functional.relu)
        def relu(x: Any) -> Any:
            return nn.functional.relu(x) * by

        return relu

    assert digest(wrapping(1))[1] != digest(wrapping(2))[1]


def test_a_users_function_in_a_decorator_of_a_library_is_looked_into() -> None:
    def decorated(by: int) -> Any:
        @torch.no_grad()
        def double(x: Any) -> Any:
            return x * by

        return double

    assert digest(decorated(1))[1] != digest(decorated(2))[1]


def test_a_class_that_a_library_makes_of_a_users_is_looked_into() -> None:
    class Own(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) * 2

    module = Own(2, 2)
    parametrize.register_parametrization(module, "weight", nn.Identity())
    assert type(module) is not Own
    assert any(name.endswith("Own.forward") for name in digest(module)[1])


def test_a_users_file_named_as_one_of_the_standard_library_is_looked_into(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = ModuleType("profile")
    own.__file__ = "/home/somebody/profile.py"
    exec("def gate(x):\n    return x * 2\n", vars(own))
    monkeypatch.setitem(sys.modules, "profile", own)
    from tlcompile.features.canonical import _is_standard

    _is_standard.cache_clear()
    try:
        assert "profile.gate" in digest(own.gate)[1]
    finally:
        _is_standard.cache_clear()


def function(text: str, **names: Any) -> Any:
    scope: dict[str, Any] = {"__name__": "of_a_user", **names}
    exec(text, scope)
    return scope["f"]


def plus(number: int) -> Any:
    return function(f"f = lambda x: x + {number}")


@pytest.mark.parametrize(
    "hold",
    [
        lambda number: MappingProxyType({"a": plus(number)}),
        lambda number: SimpleNamespace(a=torch.tensor([1 + number * 1e-6])),
        lambda number: deque([torch.tensor([1 + number * 1e-6])]),
        lambda number: transforms.Compose([transforms.Lambda(plus(number))]),
        lambda number: functools.partialmethod(plus(number)),
    ],
    ids=["mapping", "namespace", "deque", "transforms", "method"],
)
def test_what_a_library_holds_of_others_is_looked_at(hold: Any) -> None:
    assert digest(hold(1)) != digest(hold(2))
    assert digest(hold(1)) == digest(hold(1))


@pytest.mark.parametrize(
    "text",
    [
        "def f(x):\n    import of_another\n    return x * of_another.SCALE",
        "def f(x):\n    from of_another import SCALE\n    return x * SCALE",
    ],
)
def test_what_a_function_imports_when_it_runs_counts(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other: Any = ModuleType("of_another")
    monkeypatch.setitem(sys.modules, "of_another", other)
    found = []
    for other.SCALE in (1, 2, 1):
        found.append(digest(function(text)))
    assert found[0] == found[2] != found[1]


def test_the_class_of_a_class_counts() -> None:
    def made(number: int) -> Any:
        text = f"class M(type):\n    def __call__(cls): return {number}\nclass f(metaclass=M): pass"
        return function(text)

    assert digest(made(1)) != digest(made(2))
