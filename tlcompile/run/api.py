"""`tlcompile.train`: what the command does, from Python."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from torch import nn

from tlcompile.errors.ranks import DevicesFromPythonError
from tlcompile.errors.resume import RunFinishedError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import complete, load_recipe
from tlcompile.recipe.schema import Recipe
from tlcompile.run.folder import find_generation, read_record, run_folder
from tlcompile.run.launch import num_devices
from tlcompile.run.train import train_recipe
from tlcompile.training.ranks import is_rank, join_ranks
from tlcompile.training.state import EpochRow


def train(
    recipe: Recipe | str | Path,
    overrides: Iterable[str] = (),
    *,
    base: nn.Module | None = None,
    folder: str | Path | None = None,
) -> tuple[CompiledModel, list[EpochRow]]:
    """Train a recipe, as `tlcompile train` does.

    Args:
        recipe: A recipe, or a file's path.
        overrides: Texts such as "freeze.upto=layer3", for a path.
        base: Your own module instead of the recipe's base; it is copied first.
        folder: Where the run goes; default: the recipe's own folder, or one beside it where that is
            finished. An unfinished run that is there goes on.

    Returns:
        The model with its best epoch's weights, in eval mode, and one row an epoch.

    Raises:
        TypeError: Overrides beside a recipe that is loaded already.
        RunFinishedError: A finished run lies in `folder`.
        TLCompileError: Anything that the recipe, the data or the machine has to mend.
    """
    overrides = tuple(overrides)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe, overrides)
    elif overrides:
        raise TypeError("overrides go with a file's path: load_recipe(path, overrides)")
    recipe = complete(recipe)
    if num_devices(recipe) > 1 and not is_rank():
        raise DevicesFromPythonError(wanted=num_devices(recipe), key=("run", "devices"))
    if folder is None:
        where, _ = find_generation(run_folder(recipe), again=True)
    else:
        where = Path(folder)
        if read_record(where) is not None:
            raise RunFinishedError(path=where)
    ranks = join_ranks()
    where = Path(ranks.first_says(str(where)))
    result = train_recipe(recipe, where, base=base, ranks=ranks)
    ranks.close()
    return result.model, result.history
