"""All points of a sweep at once: validated before the first starts, then run here or elsewhere."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig

from tlcompile.errors.base import Problems, TLCompileError, raise_problems
from tlcompile.errors.run import DuplicatePointError
from tlcompile.recipe.flow import to_flow
from tlcompile.recipe.schema import Recipe
from tlcompile.run.app import SESSION, Session
from tlcompile.run.engines import engine_of, refuse_wrong_direction
from tlcompile.run.folder import recipe_digest
from tlcompile.run.shared import Shared
from tlcompile.run.sweep import sweep_folder, sweeps_above
from tlcompile.sweep.points import Point

HOW = ("run.", "sweep.", "name", "features.cache")  # keys that `recipe_digest` leaves out


def launch_points(
    job_overrides: Sequence[Sequence[str]], context: HydraContext, config: DictConfig
) -> list[JobReturn]:
    """Run the points that Hydra's sweeper made; called by the plug-in, once or for each batch.

    Raises:
        Problems: Points that are wrong; none was started.
        DuplicatePointError: Two points are the same recipe.
        WrongDirectionError: The sweeper would look for the worst value.
    """
    session = SESSION[-1]
    points = [session.point(texts) for texts in job_overrides]
    recipes = compose_all(session, job_overrides)
    engine = engine_of(recipes[0], session.for_launcher, context, config)
    session.shared = session.shared or Shared()
    how: dict[str, Any] = {"engine": engine, "shared": session.shared}
    if session.searches:
        refuse_wrong_direction(config.hydra.sweeper, recipes[0])
        return _searched(session, points, recipes, how)
    refuse_duplicates(points, recipes)
    earlier = session.results[-1] if session.results else []
    if earlier:  # hydra.sweeper.max_batch_size
        how |= {"earlier": earlier, "folder": session.folder}
    else:
        session.folder = sweep_folder(recipes)
    rows = session.run_points(points, recipes, **how)
    session.results.append(rows)
    return [_completed(row) for row in rows[len(earlier) :]]


def _searched(
    session: Session,
    points: Sequence[tuple[str, ...]],
    recipes: Sequence[Recipe],
    how: dict[str, Any],
) -> list[JobReturn]:
    """Run what a search asks for; one that it asks for again has its old result."""
    digests = [recipe_digest(recipe) for recipe in recipes]
    new = {
        digest: (point, recipe)
        for digest, point, recipe in zip(digests, points, recipes, strict=True)
        if digest not in session.known
    }
    if new:
        rows = session.run_points(
            [point for point, _ in new.values()],
            [recipe for _, recipe in new.values()],
            earlier=list(session.known.values()),
            folder=session.folder or _search_folder(session, recipes[0]),
            **how,
        )
        session.results.append(rows)
        session.known |= zip(new, rows[len(session.known) :], strict=True)
    return [_returned(session.known[digest]) for digest in digests]


def _search_folder(session: Session, recipe: Recipe) -> Path:
    """Return the folder of a search: the same recipe and overrides, the same folder."""
    texts = [to_flow(session.root), *(override.text for override in session.typed)]
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]
    session.folder = sweeps_above(recipe) / f"{recipe.name}-search-{digest}"
    return session.folder


def compose_all(session: Session, job_overrides: Sequence[Sequence[str]]) -> list[Recipe]:
    """Compose and validate every point; all problems are raised together."""
    recipes: list[Recipe] = []
    errors: dict[str, TLCompileError] = {}
    for texts in job_overrides:
        try:
            recipes.append(session.recipe(texts))
        except TLCompileError as error:
            members = error.errors if isinstance(error, Problems) else (error,)
            errors.update({str(member): member for member in members})
    raise_problems(errors.values())
    return recipes


def refuse_duplicates(points: Sequence[tuple[str, ...]], recipes: Sequence[Recipe]) -> None:
    """Refuse points that are the same recipe after composition."""
    seen: dict[str, list[tuple[str, ...]]] = {}
    for point, recipe in zip(points, recipes, strict=True):
        seen.setdefault(recipe_digest(recipe), []).append(point)
    for same in seen.values():
        if len(same) > 1:
            varied = set(same[1]) - set(same[0])
            idle = sorted(text.partition("=")[0] for text in varied if text.startswith(HOW))
            raise DuplicatePointError(points=tuple(map(" ".join, same)), idle=tuple(idle))


def _completed(row: object) -> JobReturn:
    """Return a point to a sweeper that only counts them: one that failed is a row, not the end."""
    returned = JobReturn()
    returned.return_value = getattr(row, "best", None)
    returned.status = JobStatus.COMPLETED
    return returned


def _returned(row: Point) -> JobReturn:
    """Return a point to a search: the monitored value, or a failure. NaN would end some sweepers."""
    returned = JobReturn()
    returned.overrides = list(row.overrides)
    fine = row.best is not None and math.isfinite(row.best)
    returned.return_value = row.best if fine else RuntimeError(row.error or "no finite result")
    returned.status = JobStatus.COMPLETED if fine else JobStatus.FAILED
    return returned
