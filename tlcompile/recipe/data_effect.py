"""Lines of `data` that would say nothing to the task: an error each, before any image is looked for."""

from __future__ import annotations

from collections.abc import Iterator

from tlcompile.recipe.data import Data
from tlcompile.recipe.fields import RuleAt
from tlcompile.recipe.tasks import Tasks

OF_ONE_CLASS = ("classification", "binary")
_SEVERAL = "several outputs"


def refuse_idle_data(data: Data, sampling: str, task: Tasks) -> None:
    """Refuse data that cannot say what is to be predicted, and lines without effect.

    Args:
        data: The section.
        sampling: `fine_tune.sampling`.
        task: The recipe's.

    Raises:
        RuleAt: The first of them.
    """
    word = task if isinstance(task, str) else _SEVERAL
    if sampling == "balanced" and word not in OF_ONE_CLASS:
        rule = (
            f"balanced has no effect on {_named(word)}, where an image has no one class | drop it"
        )
        raise RuleAt(rule, "fine_tune", "sampling")
    for key, rule in _idle_lines(data, word):
        raise RuleAt(rule, "data", key)


def _idle_lines(data: Data, task: str) -> Iterator[tuple[str, str]]:
    """Yield keys of `data` with what is wrong with them."""
    table = data.csv is not None or data.huggingface is not None
    if data.folder is not None and not table and task not in (*OF_ONE_CLASS, "segmentation"):
        yield "folder", _says_classes_alone("folder", task)
    if data.dataset is not None and task not in OF_ONE_CLASS:
        yield "dataset", _says_classes_alone("dataset", task)
    if data.huggingface is not None and task == "segmentation":
        yield "huggingface", "it cannot give masks | write data.folder or data.csv"
    if task == "regression" and table and data.target is None:
        rule = "task: regression wants columns of numbers | name them: data.target: [grams]"
        yield "csv" if data.csv else "huggingface", rule
    yield from _idle_targets(data, task)
    if data.classes is not None and task in ("regression", _SEVERAL):
        yield "classes", f"classes has no effect on {_named(task)} | drop data.classes"
    if data.classes is not None and len(data.classes) < 2 and task in OF_ONE_CLASS:
        yield "classes", f"{_named(task)} chooses among two classes or more | name another"
    if data.per_class is not None and task not in OF_ONE_CLASS:
        rule = (
            f"per_class has no effect on {_named(task)}, where an image has no one class | drop it"
        )
        yield "per_class", rule


def _idle_targets(data: Data, task: str) -> Iterator[tuple[str, str]]:
    if data.target is None:
        return
    if task == _SEVERAL:
        rule = "target has no effect on several outputs | write it at each: task.<output>.target"
        yield "target", rule
    elif len(data.target) > 1 and task not in ("multilabel", "regression"):
        yield "target", f"{_named(task)} reads one column | write data.target: {data.target[0]}"


def _says_classes_alone(key: str, task: str) -> str:
    return f"{key} says one class an image, which is not {_named(task)} | name a table: data.csv"


def _named(task: str) -> str:
    return task if task == _SEVERAL else f"task: {task}"
