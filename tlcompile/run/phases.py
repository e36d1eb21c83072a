"""The phases of a run: one model a phase over one module tree, and what trains each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlcompile.data.digests import Keys, shared_between_splits, worded
from tlcompile.data.order import balanced_weights, epoch_order
from tlcompile.data.samples import Samples
from tlcompile.errors.data import DataError
from tlcompile.features.fingerprint import describe
from tlcompile.features.own import own_store
from tlcompile.features.prefix import Rows
from tlcompile.features.sources import Source
from tlcompile.model.compiled import CompiledModel
from tlcompile.model.saved import FrozenFile, golden_rows
from tlcompile.recipe.schema import Recipe
from tlcompile.run.features import SourceBuilder
from tlcompile.run.groups import groups_of
from tlcompile.run.mixing import mixed_rows, with_mixed_images
from tlcompile.run.objective import monitor_of
from tlcompile.run.rates import phase_names
from tlcompile.run.regularise import after_step_of, average_of, before_step_of
from tlcompile.run.shared import Own
from tlcompile.run.splits import Say, Splits, check_readable
from tlcompile.store.store import Store
from tlcompile.training.compute import Compute, choose_precision
from tlcompile.training.loop import PhaseTrainer, Settings
from tlcompile.training.objective import Objective
from tlcompile.training.optim import Optimizers, has_fused
from tlcompile.training.proof import FreezeProof, frozen_digests, refuse_ungrouped
from tlcompile.training.ranks import ALONE, Ranks
from tlcompile.training.schedule import build_schedule
from tlcompile.training.sharding import bring_frozen_part, gather_into, sharded
from tlcompile.training.state import TrainingState
from tlcompile.zoo.base import BaseModel


def moving(models: Sequence[CompiledModel]) -> frozenset[str]:
    """Return the names of the tensors that training moves in any of these phases."""
    names = frozenset(models[0].state_dict()) if models else frozenset()
    return names - frozenset.intersection(*(model.frozen.tensors for model in models))


@dataclass
class Phases:
    """All phases of a run, and what they share.

    Attributes:
        recipe: What the user asked for.
        folder: The run's own.
        opened: The base.
        origin: What the record says of it.
        splits: The images.
        models: One a phase.
        objective: What is minimised and what is told.
        device: Where to compute.
        digests: Of the images of each split.
        say: Takes lines for the user.
        state: Where training stands.
        ranks: Processes that train together.
        shared: What the points of a sweep make once.
        precision: Of the frozen part; what `auto` has become, once it is known.
        told: What the record says of features, phase by phase.
        test: Rows of test/, where they do not depend on which epoch is the best.
        cut: The running phase's model, and the copy of it that trains, where it is cut over ranks.
    """

    recipe: Recipe
    folder: Path
    opened: BaseModel
    origin: dict[str, Any]
    splits: Splits
    models: tuple[CompiledModel, ...]
    objective: Objective
    device: torch.device
    digests: Mapping[str, Keys]
    say: Say
    state: TrainingState
    ranks: Ranks = ALONE
    shared: Own = field(default_factory=Own)
    precision: str | None = None
    told: list[dict[str, Any]] = field(default_factory=list)
    test: Source | None = None
    cut: tuple[CompiledModel, CompiledModel] | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether what trains is cut over the ranks; whole tensors of it are on the CPU then."""
        return self.recipe.run.sharding == "full" and self.ranks.world > 1

    @property
    def home(self) -> torch.device:
        """Where whole tensors of what trains are kept."""
        return torch.device("cpu") if self.is_sharded else self.device

    def ready(self, index: int) -> CompiledModel:
        """Return a phase's model as it computes: itself, or a copy that is cut over the ranks."""
        model = self.models[index]
        model.hold_freeze()
        if not self.is_sharded:
            return model
        bring_frozen_part(model, self.device)
        return sharded(model, self.ranks, self.device)

    def gather(self) -> None:
        """Give the running phase's model what its copy has learned; every rank has to ask."""
        if self.cut is not None:
            gather_into(*self.cut)

    def golden(self) -> Rows | None:
        """Return what the frozen part computes of the golden sample, where no phase trains it."""
        model = self.models[0]
        if len(self.models) > 1 or not model.boundary:
            return None
        return self.shared.golden(self.recipe, lambda: golden_rows(model))

    def frozen_file(self) -> FrozenFile | None:
        """Return the file of what no phase trains; None where there is nothing."""
        model = self.models[0]
        still = frozenset(model.state_dict()) - moving(self.models)
        return self.shared.frozen_file(self.recipe, model, still) if still else None

    def proof(self, index: int) -> FreezeProof:
        """Write down what the model is before a phase."""
        model, known = self.models[index], None
        if index == 0:  # as all points of a sweep begin that freeze the same
            known = self.shared.frozen(self.recipe, lambda: frozen_digests(model))
        name = self.names()[index] if self.recipe.fine_tune.phases else ""
        return FreezeProof.take(model, name, known)

    def names(self) -> list[str]:
        """Return the phases' names; `main` where there is but one."""
        return phase_names(self.recipe)

    def restores_best(self, index: int) -> bool:
        """Tell whether a phase ends with its best weights, not with its last."""
        phases = self.recipe.fine_tune.phases
        return phases is not None and phases[index].restore_best

    def phase_of_best(self) -> int:
        """Return which phase the best epoch is of."""
        best = self.state.history[self.state.best or 0]
        return self.names().index(best.phase)

    @contextlib.contextmanager
    def open(self, index: int, proof: FreezeProof) -> Iterator[PhaseTrainer]:
        """Make a phase ready: what it freezes, its features, its optimizer.

        Gradients and the optimizer's state of the phase before are gone; features of weights that
        this run has trained go when the block ends.
        """
        recipe, model = self.recipe.phases()[index], self.models[index]
        for parameter in model.parameters():
            parameter.grad = None
        trained = self.ready(index)
        self.cut = None if trained is model else (model, trained)
        splits = self.splits.named()
        if len(self.models) > 1:  # which phase will be the best is not known yet
            splits.pop("test", None)
        with self.sources(index, splits) as sources:
            self.test = sources.get("test")
            yield self._trainer(index, recipe, trained, sources, proof)
        self.gather()
        self.cut = None

    @contextlib.contextmanager
    def sources(self, index: int, splits: Mapping[str, Samples]) -> Iterator[dict[str, Source]]:
        """Give the rows of splits as a phase's frozen part computes them.

        Raises:
            UnreadableImagesError: Images are damaged; all of them, of all splits.
        """
        recipe, model = self.recipe.phases()[index], self.models[index]
        trained = moving(self.models[:index]) if index else frozenset()
        own = bool(model.boundary) and not model.frozen.tensors.isdisjoint(trained)
        with self._own_store() if own else contextlib.nullcontext() as store:
            builder = SourceBuilder(
                recipe, self.opened.preprocessing, model, self.device, self.say,
                self.precision, own=store, digests=self.digests, shared=self.shared, rank=self.ranks.rank,
                describe=describe if own else partial(self.shared.describe, self.recipe, index),
            )  # fmt: skip
            try:
                found = builder.sources(splits)
                yield with_mixed_images(found, recipe, model, self.objective, self.ranks.rank)
            except DataError:
                check_readable(self.recipe, splits.values())
                raise
            finally:
                self.precision = builder.precision
                if len(self.told) == index:
                    self.told.append(builder.told)

    @contextlib.contextmanager
    def _own_store(self) -> Iterator[Store]:
        """Give all ranks one store of the run's own; the first makes it, and removes it last."""
        with contextlib.ExitStack() as stack:
            with self.ranks.first_goes_first():
                shared = not self.ranks.is_first
                store = stack.enter_context(own_store(self.folder, shared=shared))
            yield store
            self.ranks.barrier()

    def say_shared(self) -> None:
        """Say which images two splits share: these judge what was learned by heart."""
        ids = {name: part.ids for name, part in self.splits.named().items()}
        for shared in shared_between_splits(self.digests):
            self.say(f"warning     {worded(shared, ids)}")

    def _trainer(
        self,
        index: int,
        recipe: Recipe,
        model: CompiledModel,
        sources: Mapping[str, Source],
        proof: FreezeProof,
    ) -> PhaseTrainer:
        tune = recipe.fine_tune
        val = sources.get("val")
        monitor = monitor_of(recipe, self.objective, judged=val is not None)
        rising = self.objective.metrics[monitor.partition("/")[2]]
        stop = tune.early_stop  # of a phase its `until`
        settings = Settings(
            name=self.names()[index],
            epochs=tune.epochs,
            batch_size=tune.batch_size,
            seed=tune.seed,
            monitor=monitor,
            rising=rising,
            accumulate=tune.accumulate,
            micro_batch=self.recipe.run.micro_batch,
            patience=stop.patience if stop else None,
            min_delta=stop.min_delta if stop else 0.0,
        )
        precision = choose_precision(recipe.run.precision, self.device)
        compute = Compute(precision, self.device, compiled=recipe.run.compile)
        if not self.is_sharded:  # what is cut has one memory format
            compute.prepare(model)
        groups = groups_of(recipe, model)
        refuse_ungrouped(model, groups)
        schedule = tune.schedule.options()
        samples = self.splits.train
        return PhaseTrainer(
            model,
            sources["train"],
            val,
            objective=self.objective,
            optimizers=Optimizers(groups, dict(model.trainable()), fused=has_fused(self.device)),
            schedule=build_schedule(tune.schedule.name, rising=rising, **schedule),
            settings=settings,
            proof=proof,
            state=self.state,
            order=_order(recipe, samples),
            moving=moving(self.models),
            before_step=before_step_of(recipe, model),
            after_step=after_step_of(recipe, model),
            average=average_of(recipe, model),
            mix=mixed_rows(recipe, model, self.objective),
            ranks=self.ranks,
            compute=compute,
            name_of=lambda place: samples.ids[place],
        )


def _order(recipe: Recipe, samples: Samples) -> Any:
    """Return what gives the order of an epoch."""
    balanced = recipe.fine_tune.sampling == "balanced"
    weights: Tensor | None = balanced_weights(samples) if balanced else None
    count, seed = len(samples), recipe.fine_tune.seed
    return lambda epoch: epoch_order(count, seed, epoch, weights)
