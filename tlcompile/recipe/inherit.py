"""What a recipe takes from the run that it starts from: task, data and seed, unless it says so itself.

Nothing else is inherited: classifier and outputs are part of the run's model, and freeze is only
what the new recipe says.
"""

from __future__ import annotations

from tlcompile.errors.base import Span, TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.recipe.finished import FinishedRun, find_run, read_run
from tlcompile.recipe.nodes import Entry, Mapping, Node, Scalar, Sequence
from tlcompile.recipe.scalars import resolve

# Of data; where one is named, the run's data are not taken.
SOURCES = frozenset({"folder", "dataset", "csv", "huggingface"})


def inherit(root: Mapping) -> Mapping:
    """Fill in what a recipe takes from its base.run, if it has one.

    What is taken stands at the place of base.run, as far as errors go.

    Args:
        root: With short forms spelled out, and overrides applied.

    Raises:
        UnknownRunError: There is no such run.
        AmbiguousRunError: There are several.
        UnfinishedRunError: It has not saved its model.
        DamagedFileError: Its recipe or record is not as it was written.
        NoEffectError: Something beside base.run has no effect.
    """
    base = _section(root, "base")
    named = base.items.get("run")
    name = named.value if named else None
    if not isinstance(name, Scalar) or resolve(name) is None or "model" in base.items:
        return root  # the schema says what is wrong, if anything
    where = name.span
    try:
        run = read_run(find_run(name.text))
    except TLCompileError as error:
        error.key = ("base", "run")
        raise error.at(where) from error.__cause__
    _refuse_idle(base)
    found = Entry(where, Scalar(str(run.folder), plain=False, span=where))
    start = Entry(root.items["base"].key_span, Mapping({"run": found}, base.span))
    return Mapping({**root.items, **_taken(run, root, where), "base": start}, root.span)


def _taken(run: FinishedRun, own: Mapping, where: Span) -> dict[str, Entry]:
    """Return the sections that a recipe takes, under what it says itself."""
    theirs = _moved(run.tree, where).items
    taken = {} if "task" in own.items else {"task": theirs["task"]}
    if not SOURCES & _section(own, "data").items.keys():
        taken["data"] = _merged(theirs["data"], own.items.get("data"))
    seed = {"seed": _section(run.tree, "fine_tune").items["seed"]}
    taken["fine_tune"] = _merged(
        Entry(where, _moved(Mapping(seed), where)), own.items.get("fine_tune")
    )
    return taken


def _refuse_idle(base: Mapping) -> None:
    """Refuse settings of a zoo's model beside a run."""
    reasons = {
        "weights": "a run starts from its own best weights",
        "size": "a run keeps the image size that it was trained with",
    }
    for name in [name for name in reasons if name in base.items]:
        raise NoEffectError(
            line=f"base.{name}",
            because=reasons[name],
            instead=f"drop base.{name}",
            key=("base", name),
            where=base.items[name].key_span,
        )


def _section(root: Mapping, name: str) -> Mapping:
    """Return a section; an empty one where it is absent, or no mapping."""
    entry = root.items.get(name)
    return entry.value if entry and isinstance(entry.value, Mapping) else Mapping({}, root.span)


def _merged(under: Entry, over: Entry | None) -> Entry:
    """Lay one mapping over another, key by key; anything else replaces."""
    if over is None:
        return under
    if not (isinstance(under.value, Mapping) and isinstance(over.value, Mapping)):
        return over
    laid = {
        key: _merged(entry, over.value.items.get(key)) for key, entry in under.value.items.items()
    }
    return Entry(over.key_span, Mapping({**over.value.items, **laid}, over.value.span))


def _moved(root: Mapping, where: Span) -> Mapping:
    """Return the same tree as if all of it stood at one place."""
    items = {key: Entry(where, _at(entry.value, where)) for key, entry in root.items.items()}
    return Mapping(items, where)


def _at(node: Node, where: Span) -> Node:
    match node:
        case Mapping():
            return _moved(node, where)
        case Sequence():
            return Sequence([_at(item, where) for item in node.items], where)
        case Scalar():
            return Scalar(node.text, node.plain, where)
