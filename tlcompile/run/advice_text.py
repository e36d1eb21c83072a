"""Advice on the terminal: a table of freeze points, a few lines, and what to type next; or data."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from tlcompile.errors.base import listed
from tlcompile.recipe.schema import Recipe
from tlcompile.run.advising import Advice
from tlcompile.run.say import say, table
from tlcompile.sweep.advice import Ranked, scored_data

SWEPT = 3  # points of the sweep that is advised
COLUMNS = (
    "rank", "freeze point", "bytes a row", "trains", "numbers", "LogME", "H-score", "probe",
    "95 % interval",
)  # fmt: skip


def show_advice(advice: Advice, commands: Sequence[str]) -> None:
    """Print it."""
    what = "numbers" if advice.classes is None else f"{advice.classes} classes"
    drawn = "" if advice.images == advice.total else f" of {advice.total:,}"
    say(f"{advice.name}: {advice.model}, {advice.images:,}{drawn} training images, {what}")
    columns = [name for name in COLUMNS if advice.classes is not None or name != "H-score"]
    table("", columns, [_cells(one) for one in advice.points])
    say("")
    for one in advice.left_out:
        say(f"left out    {one.text}: {one.error.headline()}")
    if advice.leep is not None:
        floor = f"0 at best, {advice.floor:.3f} where it knows nothing"
        say(
            f"LEEP        {advice.leep:.3f} of the base's own classifier ({floor}): one for all points"
        )
    level, *reasons = (advice.confidence.level, *advice.confidence.reasons)
    say(f"confidence  {level}: {'; '.join(reasons)}")
    for word, command in zip(("advice", ""), commands, strict=False):
        say(f"{word:<12}{command}")
    say(f"            ({advice.seconds:.1f} s; nothing was trained)")


def _cells(one: Ranked) -> tuple[str, ...]:
    point = one.scored
    name = point.point if not point.also else f"{point.point} (= {listed(point.also)})"
    low, high = (_share(value, point.probe.metric) for value in point.probe.interval)
    return (
        str(one.rank),
        name,
        f"{point.num_bytes:,}",
        f"{point.trainable:,}",
        f"{point.width:,}",
        f"{point.log_me:.4f}",
        *([] if point.h_score_shrunk is None else [f"{point.h_score_shrunk:.4f}"]),
        f"{_share(point.probe.value, point.probe.metric)}"
        + (" %" if point.probe.metric == "accuracy" else " R2"),
        f"{low} to {high}",
    )


def _share(value: float, metric: str) -> str:
    return f"{100 * value:.1f}" if metric == "accuracy" else f"{value:.3f}"


def commands_of(advice: Advice, recipe: Recipe, path: str, others: Sequence[str]) -> list[str]:
    """Return the command that trains at the best point, and the sweep over the best three.

    Args:
        advice: What was found.
        recipe: As it was asked about.
        path: Its file, as typed.
        others: Overrides, as typed, without those of the freeze point.
    """
    phases, key = recipe.fine_tune.phases, "freeze.upto"
    points = [one.scored.point for one in advice.points[:SWEPT]]
    words = ["tlcompile", "train", path, *others]
    if phases is not None and phases[0].freeze is not None:
        key = "fine_tune.phases.0.freeze"
        points = [f"{{upto: {point}}}" if point.startswith("{") else point for point in points]
    elif recipe.freeze.only:
        words.append("~freeze.only")
    found = [[*words, f"{key}={points[0]}"]]
    if len(points) > 1:
        found.append([*words, "-m", f"{key}={','.join(points)}"])
    return [shlex.join(line) for line in found]


def advice_data(advice: Advice, commands: Sequence[str]) -> dict[str, Any]:
    """Return it as plain data; docs/json.md has the keys."""
    sure = advice.confidence
    return {
        "model": advice.model,
        "images": advice.images,
        "total": advice.total,
        "classes": advice.classes,
        "points": [scored_data(one) for one in advice.points],
        "leep": advice.leep,
        "leep_floor": advice.floor,
        "left_out": [
            {"freeze": one.text, "because": one.error.headline()} for one in advice.left_out
        ],
        "confidence": {
            "level": sure.level,
            "reasons": list(sure.reasons),
            "kendall_tau": {
                pair: None if tau != tau else tau for pair, tau in sure.agreement.items()
            },
        },
        "train": commands[0],
        "sweep": commands[1] if len(commands) > 1 else None,
        "seconds": advice.seconds,
    }
