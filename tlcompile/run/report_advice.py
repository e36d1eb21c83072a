"""How good a ranking of the freeze points was: what `advise --json` said beside what a sweep found."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlcompile.errors.recipe import CommandLineError
from tlcompile.report.encoding import encode
from tlcompile.report.page import metric_words, percent, shown_value
from tlcompile.report.pages import Advice, SweepData
from tlcompile.sweep.transferability import RankingQuality, ranking_quality


def advice_of(path: str, data: SweepData) -> Advice:
    """Return what a sweep's page says of advice that was given before.

    Raises:
        CommandLineError: The file is no advice, or about none of the sweep's freeze points.
    """
    ranks, results = _read(path), found_at(data)
    known = {point: rank for point, rank in ranks.items() if point in results}
    if not known:
        names = ", ".join(results) or "none"
        raise _refusal(f"'{path}' is about none of the sweep's freeze points: {names}")
    quality = ranking_quality(
        {point: -rank for point, rank in known.items()}, results, rising=data.rising
    )
    order = sorted(known, key=known.__getitem__)
    rows = tuple(
        (str(place), point, shown_value(data.metric, results[point]))
        for place, point in enumerate(order, 1)
    )
    columns = ("advised", "freeze point", f"{metric_words(data.metric)} found")
    return Advice(_sentence(quality, data.metric, len(known)), (columns, rows))


def _read(path: str) -> dict[str, float]:
    """Return the rank of each freeze point, under each of its names."""
    try:
        points: list[dict[str, Any]] = json.loads(Path(path).read_bytes())["points"]
        return {
            name: float(point["rank"])
            for point in points
            for name in (point["freeze"], *point["also"])
        }
    except (OSError, ValueError, KeyError, TypeError) as cause:
        wanted = "what `tlcompile advise RECIPE --json` prints"
        raise _refusal(f"--advice takes {wanted}, and '{path}' is none") from cause


def _refusal(problem: str) -> CommandLineError:
    return CommandLineError(problem=problem, help="tlcompile report --help")


def found_at(data: SweepData) -> Mapping[str, float]:
    """Return the best result at each freeze point: of settings the best, of seeds the mean."""
    repeats = encode(data).repeats
    settings: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
    for point in data.points:
        if point.value is not None:
            kept = tuple(item for item in point.overrides.items() if item[0] not in repeats)
            settings.setdefault((point.freeze, kept), []).append(point.value)
    found: dict[str, float] = {}
    better = max if data.rising else min
    for (freeze, _), values in settings.items():
        mean = sum(values) / len(values)
        found[freeze] = better(found.get(freeze, mean), mean)
    return found


def _sentence(quality: RankingQuality, metric: str, count: int) -> str:
    tau = quality.kendall_tau
    agree = (
        f"Over {count} freeze points Kendall's tau between the ranking and the results is {tau:.2f} "
        "(1: the same order, -1: the other way round)."
        if math.isfinite(tau)
        else "There are too few different points to compare orders."
    )
    if quality.best_predicted == quality.best_found:
        return (
            f"{agree} The point that was advised, {quality.best_found}, is the best that was found."
        )
    lost = percent(quality.regret) if metric.endswith("accuracy") else f"{quality.regret:.4g}"
    return (
        f"{agree} Taking the point that was advised, {quality.best_predicted}, instead of the best "
        f"that was found, {quality.best_found}, costs {lost}."
    )
