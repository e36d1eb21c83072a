"""Prove a recipe: compile every phase of it on meta, and refuse what could not be trained."""

from __future__ import annotations

from dataclasses import dataclass

from tlcompile.compiler import PLACEHOLDER_CLASSES, prove_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.objective import refuse_unknown_weights
from tlcompile.run.refuse import refuse_other_classes, refuse_untrainable
from tlcompile.run.refuse_rates import refuse_unfit_rates
from tlcompile.run.regularise import refuse_idle_regularisers
from tlcompile.run.splits import known_classes, refuse_unknown_classes, splits_at_hand


@dataclass(frozen=True)
class Proof:
    """A recipe that was proved, and what is still unknown.

    Attributes:
        recipe: As it was read.
        model: As its first phase has it.
        classes: None: only the images would tell.
        later: The models of the phases behind the first; they differ in what is frozen.
    """

    recipe: Recipe
    model: CompiledModel
    classes: int | None
    later: tuple[CompiledModel, ...] = ()


def compile_phases(recipe: Recipe, classes: int | None) -> Proof:
    """Compile each phase without weights or data; unknown classes are replaced by a placeholder."""
    known = classes if classes is not None else known_classes(recipe)
    width = PLACEHOLDER_CLASSES if known is None else known
    first, *later = (prove_recipe(phase, num_classes=width) for phase in recipe.phases())
    return Proof(recipe, first, known, tuple(later))


def refuse_unfit(proof: Proof) -> None:
    """Refuse what compiles and could not be trained as it is written.

    Raises:
        TLCompileError: Any reason; those of one phase all at once.
    """
    refuse_other_classes(proof.recipe, proof.model)
    models = (proof.model, *proof.later)
    for recipe, model in zip(proof.recipe.phases(), models, strict=True):
        refuse_untrainable(recipe, model, proof.classes, swept=len(models) > 1)
    refuse_idle_regularisers(proof.recipe, models)
    refuse_unfit_rates(proof.recipe, models)
    refuse_unknown_classes(proof.recipe)
    _refuse_unknown_weights(proof)


def _refuse_unknown_weights(proof: Proof) -> None:
    """Refuse class weights of no class, where some are named and the images are at hand."""
    tasks = proof.recipe.output_tasks()
    named = [name for name, task in tasks.items() if isinstance(task.class_weights, dict)]
    channels = next(iter(proof.model.summary.sample_shapes.values()))[0]
    splits = splits_at_hand(proof.recipe, channels) if named else None
    if splits is not None:
        names = {"": splits.classes, **splits.train.names}
        for name in named:
            refuse_unknown_weights(proof.recipe, name, names[name])
