"""Name what decides the rows of a set: the same key means the same rows, another key other rows.

Nothing behind the boundary is in it, and nothing of a run: no head, rate, seed, label or path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from tlcompile.errors.base import listed
from tlcompile.features.arithmetic import arithmetic, decoder, resizer
from tlcompile.features.canonical import Canonical, TensorDigests, digest_of
from tlcompile.graph.program import own_modules
from tlcompile.graph.shapes import attribute_at
from tlcompile.graph.split import Boundary
from tlcompile.model.compiled import CompiledModel
from tlcompile.store.about import About
from tlcompile.zoo.preprocessing import Preprocessing

FORMAT = 1  # of what follows; count it up where the same ingredients come to mean something else
FOR_PEOPLE = frozenset({"base", "weights", "input"})  # told, and not in the key
PIXELS = "pixels"
ABSENT = "absent"

Path = tuple[str, ...]


def describe(
    model: CompiledModel,
    *,
    preprocessing: Preprocessing | None,
    chunk_size: int,
    precision: str,
    device: torch.device,
    tensors: TensorDigests | None = None,
) -> tuple[About, ...]:
    """Name the rows of each boundary tensor; what decides them is read anew each time.

    Args:
        model: With real tensors.
        preprocessing: From a decoded image to the model's input; None: inputs come prepared.
        chunk_size: Images a pass; decides bits in `exact`.
        precision: exact, fp32-fused or fast.
        device: Where the frozen part runs.
        tensors: Names the values of tensors; None: by their SHA-256.
    """
    tensors = tensors or TensorDigests()
    given: dict[str, Any] = {"arithmetic": arithmetic(precision, chunk_size, device)}
    if preprocessing is not None:
        given |= {"preprocessing": preprocessing.to_dict(), "decoder": decoder()}
    return tuple(
        _about(
            boundary.vertex,
            boundary.shape,
            _dtype(boundary, precision),
            {
                "base": model.summary.model,
                "weights": model.summary.source,
                "input": {name: list(s) for name, s in model.summary.sample_shapes.items()},
                **_computation(model, boundary, Canonical(tensors)),
                **given,
            },
        )
        for boundary in model.boundary
    )


def _dtype(boundary: Boundary, precision: str) -> str:
    """Return the dtype of rows: `fast` gives every floating one in bf16."""
    floating = getattr(torch, boundary.dtype).is_floating_point
    return "bfloat16" if precision == "fast" and floating else boundary.dtype


def describe_pixels(preprocessing: Preprocessing) -> About | None:
    """Name images after decoding, resize and crop; None where they differ in size."""
    size = (preprocessing.crop,) * 2 if preprocessing.crop else preprocessing.resize
    if not isinstance(size, tuple):
        return None
    steps = preprocessing.to_dict()
    del steps["mean"], steps["std"]
    shape = (preprocessing.channels, *(int(side) for side in size if side))
    given = {"preprocessing": steps, "decoder": decoder(), "resizer": resizer()}
    return _about(PIXELS, shape, "uint8", given)


def _about(vertex: str, shape: tuple[int, ...], dtype: str, given: dict[str, Any]) -> About:
    form = {"format": FORMAT, "vertex": vertex, "shape": list(shape), "dtype": dtype}
    ingredients = {**form, **given}
    return About(key_of(ingredients), vertex, shape, dtype, ingredients)


def key_of(ingredients: dict[str, Any]) -> str:
    """Return the key that ingredients make."""
    return digest_of({k: value for k, value in ingredients.items() if k not in FOR_PEOPLE})


def _computation(model: CompiledModel, boundary: Boundary, canonical: Canonical) -> dict[str, Any]:
    """Return what computes one boundary tensor: program, modules, tensors, and code of no library."""
    program = boundary.program
    modules, tensors = _used(model, boundary)
    names = {name: canonical.value(value) for name, value in program.namespace.items()}
    written: dict[str, Any] = {
        "program": digest_of([program.source, names, program.modules]),
        "modules": {name: canonical.module(module) for name, module in modules.items()},
        "tensors": {name: canonical.value(tensor) for name, tensor in tensors.items()},
    }
    everywhere = [*hooks._global_forward_pre_hooks.values(), *hooks._global_forward_hooks.values()]
    if everywhere:
        written["hooks"] = canonical.value(everywhere)
    return {**written, "code": canonical.code, "libraries": canonical.libraries}


def _used(model: CompiledModel, boundary: Boundary) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """Return the modules that a boundary's program calls, those inside them, and all their tensors.

    But for what stands inside and is a vertex of its own: whether that is frozen, too, is another
    boundary's business.
    """
    tree = model.tree
    path_of = {id(module): path for path, module in tree.named_modules()}
    held = {target: attribute_at(tree, target) for target in boundary.targets}
    modules = {
        path_of[id(module)]: module
        for target, found in held.items()
        if isinstance(found, nn.Module)
        for module in own_modules(tree, target, model.targets)
    }
    tensors = {name: v for name, v in held.items() if not isinstance(v, nn.Module)}
    for path, module in modules.items():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            tensors[f"{path}.{name}"] = tensor
    return modules, tensors


def differs(a: About, b: About) -> list[str]:
    """Say in words what is another in `a`, which is wanted, than in `b`, which was there before."""
    named: dict[str, list[str]] = {}
    lines = []
    for path, new, old in _changes(a.ingredients, b.ingredients):
        if path[0] in FOR_PEOPLE:
            continue
        what, name = _words(path, new, old)
        if name is None:
            lines.append(f"{what}: {_shown(old)}, now {_shown(new)}")
        elif name not in named.setdefault(what, []):
            named[what].append(name)
    return [f"{what} {listed(names)}".rstrip() for what, names in named.items()] + lines


def _changes(new: Any, old: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """Yield what differs, as far inside as both sides have it."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        yield path, new, old
        return
    # The precision decides what else is asked for.
    names = ["precision"] if new.get("precision") != old.get("precision") else {**new, **old}
    for name in names:
        one, other = new.get(name, ABSENT), old.get(name, ABSENT)
        if one != other:
            yield from _changes(one, other, (*path, name))


def _words(path: Path, new: Any, old: Any) -> tuple[str, str | None]:
    """Return what differs, and the name of the part, where several are listed in one line."""
    match path:
        case ("program",):
            return "the operations of the frozen part", ""
        case ("modules" | "tensors" | "code" as kind, name) if ABSENT in (new, old):
            return f"{kind} that are {'new' if old == ABSENT else 'gone'}:", name
        case ("modules", name, "kind"):
            return f"the kind of {name}", None
        case ("modules", name, "settings", *rest):
            return f"{'.'.join(rest)} of {name}", None
        case ("modules", name, *_):
            return "the hooks of", name
        case ("tensors", name, "sha256"):
            return "the values of", name
        case ("tensors", name, *_):
            return "the form of", name
        case ("code", name):
            return "the code of", name
        case _:
            return " ".join(path), None


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
