"""Ask `check` what it refuses of a recipe over the bundled base, and where."""

from __future__ import annotations

from pathlib import Path

from tlcompile.compiler import prove_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.load import load_recipe
from tlcompile.run.refuse import refuse_untrainable

BASE = "base: digits_net\n"  # line 1 of every recipe


def refusal(
    tmp_path: Path, text: str, *, swept: bool = False, **widths: int
) -> TLCompileError | None:
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    try:
        recipe = load_recipe(path)
        model = prove_recipe(recipe, num_classes=5)
        refuse_untrainable(recipe, model, 5, swept=swept, widths=widths)
    except TLCompileError as error:
        return error
    return None


def check_place(error: TLCompileError | None, place: tuple[int, int], slug: str) -> None:
    assert error is not None
    assert error.slug == slug
    assert error.where is not None
    assert (error.where.line, error.where.column) == place
    assert error.exit_code == 2
