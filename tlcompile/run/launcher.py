"""All points of a sweep at once: validated before the first starts, then run in this process."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus

from tlcompile.errors.base import Problems, TLCompileError, raise_problems
from tlcompile.errors.run import DuplicatePointError
from tlcompile.recipe.schema import Recipe
from tlcompile.run.app import SESSION, Session
from tlcompile.run.folder import recipe_digest


def launch_points(job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """Run the points that Hydra's sweeper made; called by the plug-in.

    Raises:
        Problems: Points that are wrong; none was started.
        DuplicatePointError: Two points are the same recipe.
    """
    session = SESSION[-1]
    points = [session.point(texts) for texts in job_overrides]
    recipes = compose_all(session, job_overrides)
    refuse_duplicates(points, recipes)
    results = session.run_points(points, recipes)
    session.results.append(results)
    return [_returned(result) for result in results]


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
    seen: dict[str, list[str]] = {}
    for point, recipe in zip(points, recipes, strict=True):
        seen.setdefault(recipe_digest(recipe), []).append(" ".join(point))
    for same in seen.values():
        if len(same) > 1:
            raise DuplicatePointError(points=tuple(same))


def _returned(result: object) -> JobReturn:
    returned = JobReturn()
    returned.return_value = result
    returned.status = JobStatus.COMPLETED
    return returned
