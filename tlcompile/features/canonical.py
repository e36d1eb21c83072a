"""Write what decides a computation as plain JSON, the same in every process.

Without addresses, line numbers and the order of sets. Libraries stand by name and version; code of
anybody else stands by what it does.
"""

from __future__ import annotations

import collections
import dis
import functools
import hashlib
import inspect
import json
import math
import os
import re
import sys
import types
import weakref
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LIBRARIES = frozenset({"torch", "torchvision", "timm", "numpy"})  # by name and version
MAX_DEPTH = 40  # of values in values; what is deeper stands by its type and text

_STANDARD_FOLDER = os.path.dirname(os.__file__)
_BARE = frozenset(vars(nn.Module()))  # the mode, hooks, and tensors and children: said elsewhere
_PLAIN = (type(None), bool, int, str)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")
_NOT_CODE = (  # of a class: where it stands, and what is written about it
    *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"),
    *("__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"),
)
_BY_TEXT = (  # what these hold is not what they are, and changes while they are used
    *("concurrent.", "io.", "logging.", "multiprocessing.", "pathlib.", "queue.", "threading."),
    *("torch._ops.", "warnings.", "weakref."),
)
_HOLDERS = (types.MappingProxyType, collections.deque)  # in C, with a text that rounds tensors
_STARS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS


def digest_of(data: Any) -> str:
    """Return the SHA-256 of plain JSON; the order of keys does not matter."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class TensorDigests:
    """Hashes each tensor once, however often it is used."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, dict[str, Any]]] = {}

    def __call__(self, tensor: Tensor) -> dict[str, Any]:
        """Return its dtype, shape, strides and the SHA-256 of its values.

        Strides count: a weight in channels-last takes another kernel, with other last bits.
        """
        if id(tensor) not in self._known:
            self._known[id(tensor)] = tensor, _tensor(tensor.detach())
        return self._known[id(tensor)][1]


def _tensor(tensor: Tensor) -> dict[str, Any]:
    form = f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")
    plain = type(tensor) is Tensor and tensor.layout is torch.strided
    if not plain or tensor.is_quantized or tensor.is_meta:
        return {"form": f"{form} {tensor.layout}", "sha256": _never_again()}
    values = tensor.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
    digest = hashlib.sha256(values.numpy().data).hexdigest()
    return {"form": f"{form} strides {tensor.stride()}", "sha256": digest}


def _never_again() -> str:
    """Return what stands for a value that cannot be seen whole: shared with nobody, never wrongly."""
    return os.urandom(32).hex()


class Canonical:
    """Writes values, and collects the code that they call.

    Attributes:
        code: Digest of each function and class that is of no library, by name.
        libraries: Version of each library whose code is used, but torch's, by name.
    """

    def __init__(self, tensors: TensorDigests) -> None:
        self.code: dict[str, str] = {}
        self.libraries: dict[str, str] = {}
        self._tensors = tensors
        self._names: dict[int, tuple[object, str]] = {}
        self._open: list[int] = []  # what is being written, outermost first

    def module(self, module: nn.Module) -> dict[str, Any]:
        """Write one module without its tensors and children.

        Forward hooks count, for they may change what it returns; the mode does not: what is frozen
        runs in eval mode.
        """
        if isinstance(module, torch.jit.ScriptModule):  # nobody can look into what it holds
            return {"kind": self.named(type(module)), "settings": {"script": _never_again()}}
        hooks = [*module._forward_pre_hooks.values(), *module._forward_hooks.values()]
        with_hooks = {"hooks": [self.value(hook) for hook in hooks]} if hooks else {}
        settings = {
            name: self.value(value)
            for name, value in sorted(vars(module).items())
            if name not in _BARE and not _is_derived(module, name)
        }
        return {"kind": self.named(type(module)), "settings": settings, **with_hooks}

    def value(self, value: Any) -> Any:
        """Write any value; what holds itself stands by how far up it is."""
        if type(value) in _PLAIN:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if id(value) in self._open:
            return {"up": len(self._open) - self._open.index(id(value))}
        if len(self._open) == MAX_DEPTH:
            return _by_text(value)
        self._open.append(id(value))
        try:
            return self._written(value)
        finally:
            self._open.pop()

    def _written(self, value: Any) -> Any:
        match value:
            case Tensor():
                return self._tensors(value)
            case nn.Module():
                return self._whole(value)
            case Enum():
                return {"enum": self.named(type(value)), "name": value.name}
            case tuple() | list() | dict() | set() | frozenset():
                return self._container(value)
            case bytes() | bytearray():
                return {"bytes": hashlib.sha256(value).hexdigest()}
            case np.ndarray() | np.generic() if not value.dtype.hasobject:
                data = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
                return {"array": f"{value.dtype} {value.shape}", "sha256": data}
            case weakref.ref():
                return {"weak reference": True}  # dead or alive: it holds nothing
            case _:
                return self._called(value)

    def _called(self, value: Any) -> Any:
        match value:
            case type() | types.FunctionType():
                return {"code": self.named(value)}
            case types.ModuleType():
                return {"python module": value.__name__}
            case types.BuiltinFunctionType():
                return self._builtin(value)
            case types.MethodType():
                return {"method": self.value(value.__func__), "of": self.value(value.__self__)}
            case staticmethod() | classmethod():
                return {type(value).__name__: self.value(value.__func__)}
            case property():
                return {"property": [self.value(f) for f in (value.fget, value.fset, value.fdel)]}
            case functools.partial():
                parts = (value.func, value.args, value.keywords)
                return {"partial": [self.value(part) for part in parts]}
            case _:
                return self._object(value)

    def _whole(self, module: nn.Module) -> dict[str, Any]:
        """Write a module that no child names, with its tensors and children."""
        tensors = {**module._parameters, **module._buffers}
        return {
            **self.module(module),
            "tensors": {name: self.value(tensor) for name, tensor in tensors.items()},
            "children": {name: self.value(child) for name, child in module._modules.items()},
        }

    def _container(self, value: Any) -> Any:
        base = next(kind for kind in (tuple, list, dict, set, frozenset) if isinstance(value, kind))
        if base is dict:  # in its order, which a forward may go through
            items: list[Any] = [[self.value(k), self.value(v)] for k, v in value.items()]
        else:
            items = [self.value(item) for item in value]
        if base in (set, frozenset):
            items.sort(key=digest_of)
        if type(value) is tuple:
            return items
        own = {} if type(value) is base else {"class": self.named(type(value))}
        return {base.__name__: items, **own}

    def _builtin(self, function: Any) -> Any:
        """Write a function in C: it has no code to look at."""
        owner = function.__self__
        if owner is None or isinstance(owner, (types.ModuleType, type)):
            module = str(function.__module__ or getattr(owner, "__name__", ""))
            self._from_library(module)
            return {"builtin": f"{module}.{function.__qualname__}"}
        return {"builtin": function.__qualname__, "of": self.value(owner)}

    def _object(self, value: Any) -> Any:
        kind = type(value)
        silent: Any = object.__repr__
        if f"{kind.__module__}.".startswith(_BY_TEXT) and kind.__repr__ is not silent:
            return _by_text(value)
        if isinstance(value, _HOLDERS):
            return {"object": self.named(kind), "holds": self.value(_content(value))}
        held = {**_in_slots(value), **getattr(value, "__dict__", {})}
        if not held:
            return {**_by_text(value), "class": self.named(kind)}
        holds = {str(name): self.value(held[name]) for name in sorted(held, key=str)}
        return {"object": self.named(kind), "holds": holds}

    def named(self, definition: Any) -> str:
        """Return the name of a function or class; code of no library is collected, with what it uses.

        A name that two of them have (`<lambda>`) is counted on.
        """
        if id(definition) in self._names:
            return self._names[id(definition)][1]
        own = name = f"{definition.__module__}.{definition.__qualname__}"
        if self._of_library(definition):
            # A class that a library makes of another one (ParametrizedX) has that one's code, too.
            self._names[id(definition)] = definition, name
            for base in getattr(definition, "__mro__", ())[1:]:
                self.named(base)
            return name
        number = 1
        while own in self.code:
            number += 1
            own = f"{name} ({number})"
        self._names[id(definition)] = definition, own
        self.code[own] = ""  # the name is taken, for what follows may come back here
        outside, self._open = self._open, []  # what code is does not depend on who calls it
        is_class = isinstance(definition, type)
        written = self._class(definition) if is_class else self._function(definition)
        self.code[own] = digest_of(written)
        self._open = outside
        return own

    def _of_library(self, definition: Any) -> bool:
        if isinstance(definition, type):
            return self._from_library(definition.__module__)
        # functools.wraps gives a function the name of another: both must be a library's.
        places = (definition.__module__, definition.__globals__.get("__name__"))
        return all(place is not None and self._from_library(place) for place in places)

    def _from_library(self, module: str) -> bool:
        top = module.partition(".")[0]
        if top in LIBRARIES and top != "torch":
            self.libraries[top] = str(sys.modules[top].__version__)
        return top in LIBRARIES or _is_standard(top)

    def _class(self, kind: type) -> dict[str, Any]:
        members = {n: v for n, v in vars(kind).items() if n not in _NOT_CODE}
        return {
            "bases": [self.named(base) for base in (*kind.__bases__, type(kind))],
            "members": {name: self.value(members[name]) for name in sorted(members)},
        }

    def _function(self, function: types.FunctionType) -> dict[str, Any]:
        code = function.__code__
        names = sorted({name for one in _nested(code) for name in one.co_names})
        return {
            "code": self._bytecode(code, function.__doc__),
            "defaults": self.value(function.__defaults__),
            "keywords": self.value(function.__kwdefaults__),
            "closure": [self._cell(cell) for cell in function.__closure__ or ()],
            "globals": self._members({**_imported(function), **function.__globals__}, names),
            "attributes": self.value(vars(function)),
        }

    def _bytecode(self, code: types.CodeType, doc: str | None = None) -> dict[str, Any]:
        """Write what a function does: not its lines, comments, docstring and local names."""
        constants = [c for i, c in enumerate(code.co_consts) if i or c != doc or doc is None]
        arguments = code.co_argcount + code.co_kwonlyargcount
        counts = [code.co_posonlyargcount, code.co_argcount, code.co_flags & _STARS]
        return {
            "steps": code.co_code.hex(),
            "handlers": code.co_exceptiontable.hex(),
            "names": list(code.co_names),
            "arguments": [*counts, *code.co_varnames[:arguments]],
            "constants": [
                self._bytecode(c) if isinstance(c, types.CodeType) else self.value(c)
                for c in constants
            ],
        }

    def _cell(self, cell: types.CellType) -> Any:
        try:
            return self.value(cell.cell_contents)
        except ValueError:
            return {"empty": True}

    def _members(self, scope: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Write those names that a scope has; of a user's module what is read from it."""
        return {name: self._member(scope[name], names) for name in names if name in scope}

    def _member(self, value: Any, names: Iterable[str]) -> Any:
        is_module = isinstance(value, types.ModuleType)
        if not is_module or self._from_library(value.__name__) or id(value) in self._open:
            return self.value(value)
        self._open.append(id(value))
        try:
            return {"python module": value.__name__, "members": self._members(vars(value), names)}
        finally:
            self._open.pop()


@functools.cache
def _is_standard(top: str) -> bool:
    """Tell whether a module is the standard library's, and not a user's file of the same name."""
    if top not in sys.stdlib_module_names:
        return top == "builtins"
    file = getattr(sys.modules.get(top), "__file__", None)
    return file is None or file.startswith(_STANDARD_FOLDER)


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _imported(function: types.FunctionType) -> dict[str, Any]:
    """Return modules that a function imports when it runs, and that have been imported before."""
    package = str(function.__globals__.get("__package__") or "")
    steps = [step for one in _nested(function.__code__) for step in dis.get_instructions(one)]
    found = {}
    for step in (one for one in steps if one.opname in ("IMPORT_NAME", "IMPORT_FROM")):
        relative = sys.modules.get(f"{package}.{step.argval}") if package else None
        absolute = sys.modules.get(step.argval) if step.opname == "IMPORT_NAME" else None
        if relative or absolute:
            found[step.argval] = relative or absolute
    return found


def _is_derived(module: nn.Module, name: str) -> bool:
    """Tell whether an attribute is kept by a cached property, which computes it from the others."""
    kept = inspect.getattr_static(type(module), name, None)
    return isinstance(kept, functools.cached_property)


def _in_slots(value: Any) -> dict[str, Any]:
    slots = (vars(kind).get("__slots__", ()) for kind in type(value).__mro__)
    names = {n for s in slots for n in ((s,) if isinstance(s, str) else s)} - {"__dict__"}
    return {n: getattr(value, n) for n in names - {"__weakref__"} if hasattr(value, n)}


def _content(value: Any) -> Any:
    return dict(value) if isinstance(value, types.MappingProxyType) else list(value)


def _by_text(value: Any) -> dict[str, Any]:
    """Write what cannot be looked into by its type and text, without addresses."""
    kind = type(value)
    try:
        text = _ADDRESS.sub("", repr(value))
    except Exception:  # a repr is anybody's code
        text = ""
    return {"type": f"{kind.__module__}.{kind.__qualname__}", "text": text}
