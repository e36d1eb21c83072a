"""Features from Python: extract those of a loader once, train on them, predict from them."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.utils import _pytree as pytree

from tlcompile.errors.base import did_you_mean
from tlcompile.errors.fitting import (
    EmptyLoaderError,
    NotFiniteFitError,
    NothingFrozenError,
    WrongArgumentError,
)
from tlcompile.errors.run import NotFiniteLossError
from tlcompile.features.batches import Inputs, Labels, Reader, cut
from tlcompile.features.fingerprint import describe
from tlcompile.features.hard import Run, harden
from tlcompile.features.pass_size import pass_size
from tlcompile.features.precision import choose_precision
from tlcompile.features.prefix import Prefix, Rows, chunks_of, join
from tlcompile.features.root import cache_root
from tlcompile.features.rows import (
    Features,
    FeatureSource,
    join_labels,
    refuse_made_by_another,
)
from tlcompile.features.sources import trainable
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.device import exactly
from tlcompile.run.fitting import (
    Loss,
    loss_of,
    optimizer_of,
    refuse_other_labels,
    refuse_unless_positive,
)
from tlcompile.store.about import About
from tlcompile.training.goal import simple_goal
from tlcompile.training.loop import EpochDone, PhaseTrainer, Settings
from tlcompile.training.objective import Objective
from tlcompile.training.optim import Given
from tlcompile.training.proof import FreezeProof
from tlcompile.training.state import EpochRow

PRECISIONS: Final = ("exact", "fp32-fused", "fast", "auto")


class FeatureTrainer:
    """Trains a compiled model on features of its frozen part, which are computed once a sample.

    The model itself learns: prefix, suffix and model share their tensors.

    Attributes:
        model: The compiled model.
        batch_size: Samples a pass of the frozen part; fewer are padded. More than was asked for
            where a row would else depend on its place (features/pass_size.py).
        precision: Of the frozen part: exact, fp32-fused or fast.
    """

    def __init__(
        self, model: CompiledModel, *, batch_size: int = 32, precision: str = "exact"
    ) -> None:
        """Look at a model; nothing is computed yet.

        Args:
            model: With a frozen part, on the device where it shall be trained.
            batch_size: Samples a pass of the frozen part; part of the result's last bits.
            precision: exact: fp32, equal to the bit to the model. fp32-fused: fp32 with folded
                norms, within 1e-6. fast: bf16. auto: the fastest that pays on this machine.

        Raises:
            WrongArgumentError: An argument is of another kind.
            NothingFrozenError: There is nothing whose outputs could be kept.
        """
        _refuse_unfit(model, batch_size, precision)
        exactly()
        self.model = model
        self.precision = choose_precision(precision, self.device, cache_root())
        exact = self.precision == "exact"
        self.batch_size = pass_size(model, batch_size, self.device) if exact else batch_size
        self._hard: Run | None = None
        self._hardened_for: tuple[str, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(iter(self.model.state_dict().values())).device
        return device

    @property
    def prefix(self) -> nn.Module:
        """The frozen part as a module of its own, which shares the model's tensors."""
        return self.model.prefix_module()

    @property
    def suffix(self) -> nn.Module:
        """The trainable part as a module of its own, which shares the model's tensors."""
        return self.model.suffix_module()

    def extract(self, loader: Any) -> Features:
        """Compute the features of every sample, once, in order.

        Args:
            loader: Batches of any size: (inputs, labels), or inputs alone. A tensor, a tuple or a
                dictionary is one batch. Labels are tensors, or dictionaries or tuples of them.

        Raises:
            EmptyLoaderError: It gives no sample.
            WrongBatchError: A batch does not fit the model.
        """
        labels: list[Labels] = []

        def inputs() -> Iterator[Inputs]:
            for given, label in Reader.of(self.model.summary)(loader):
                labels.append(label)
                yield given

        made_by = self._made_by()
        prefix = self._prefix(made_by, _expected(loader))
        rows = [
            tuple(tensor.cpu() for tensor in prefix(*chunk))
            for chunk in cut(inputs(), self.batch_size)
        ]
        return Features(join(rows), join_labels(labels), made_by)

    def predict(self, data: Any) -> Any:
        """Return what the model returns in eval mode, from features or from a loader: raw outputs.

        Equal to the bit for features and for the samples that they are of, whatever the batches.

        Raises:
            WrongFeaturesError: Another frozen part computed the features.
            EmptyLoaderError: The loader gives no sample.
            WrongBatchError: A batch does not fit the model.
        """
        with _mode_kept(self.model), torch.no_grad():
            self.model.eval()
            outputs = [self.model.suffix(*rows) for rows in self._chunks(data)]
        return pytree.tree_map(lambda *leaves: torch.cat(leaves), *outputs)

    def fit(
        self,
        data: Any,
        *,
        epochs: int = 10,
        optimizer: torch.optim.Optimizer | str = "adamw",
        lr: float | None = None,
        loss: Loss | str = "classification",
        batch_size: int = 32,
        seed: int = 42,
        validation: Any = None,
        on_epoch: Callable[[EpochRow], Any] = lambda _row: None,
    ) -> list[EpochRow]:
        """Train the model's trainable part on features; the frozen part is not run.

        Args:
            data: Features with labels; or a loader, whose features are extracted first.
            epochs: How often each sample is seen.
            optimizer: Over model.trainable(); or its name: sgd, adam, adamw, rmsprop.
            lr: Of an optimizer by name; default: 1e-3 where only new layers train, else 1e-4.
            loss: classification or binary; or your own mean over a batch of (outputs, labels).
            batch_size: Samples a step.
            seed: Of the order of samples and of dropout.
            validation: Features with labels or a loader, to judge each epoch by.
            on_epoch: Called after each epoch, for example to step a schedule.

        Returns:
            One row an epoch; its accuracy is nan with a loss of your own.

        Raises:
            WrongArgumentError: An argument is of another kind.
            WrongFeaturesError: Another frozen part computed the features.
            WrongLabelsError: The loss cannot read the labels, or there are none.
            NothingTrainsError: Everything is frozen.
            NotFiniteFitError: The loss became NaN or infinite.
        """
        refuse_unless_positive(epochs=epochs, batch_size=batch_size)
        stepping = optimizer_of(self.model, optimizer, lr)
        task, measured = loss_of(loss)
        proof = self._proof(task)
        source = self._source(data, task)
        trainer = PhaseTrainer(
            self.model,
            source,
            None if validation is None else self._source(validation, task),
            objective=self._objective(source, task, measured),
            optimizers=Given(stepping),
            schedule=None,
            settings=Settings(epochs, batch_size, seed, "train/loss", rising=False),
            proof=proof,
            moving=frozenset(),
        )
        history = self._followed(trainer, on_epoch)
        proof.check(self.model)
        return history

    def _objective(self, source: FeatureSource, task: str | None, loss: Loss) -> Objective:
        if task is None:
            return Objective.of_loss(loss)
        width = self._one_output(source).shape[1]
        return Objective({"": simple_goal(task, width)}, device=self.device)

    def _proof(self, task: str | None) -> FreezeProof:
        proof = FreezeProof.take(self.model)
        if task is None:
            proof.waiting.clear()  # what your own loss reaches is your choice
        return proof

    def _followed(
        self, trainer: PhaseTrainer, on_epoch: Callable[[EpochRow], Any]
    ) -> list[EpochRow]:
        """Let the epochs pass; the caller's random numbers and the model's mode stay."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), _mode_kept(self.model):
            try:
                for event in trainer.run():
                    if isinstance(event, EpochDone):
                        on_epoch(event.row)
            except NotFiniteLossError as error:
                facts = {f.name: getattr(error, f.name) for f in dataclasses.fields(error)}
                raise NotFiniteFitError(**facts) from error
        return trainer.state.history

    # What the verbs share

    def _made_by(self) -> tuple[About, ...]:
        """Name what makes features now: the model's tensors may have changed since."""
        return describe(
            self.model,
            preprocessing=None,
            chunk_size=self.batch_size,
            precision=self.precision,
            device=self.device,
        )

    def _prefix(self, made_by: tuple[About, ...], images: int) -> Prefix:
        """Return what computes features now; a hard one is kept until something changes."""
        keys = tuple(about.key for about in made_by)
        if self.precision != "exact" and keys != self._hardened_for:
            self._hard = harden(
                self.model, self.precision, self.device, images=images, say=warnings.warn
            )
            self._hardened_for = keys
        return Prefix(self.model, self.batch_size, self.device, self._hard)

    def _chunks(self, data: Any) -> Iterator[Rows]:
        """Yield rows as the suffix reads them, `batch_size` samples at a time."""
        if isinstance(data, Features):
            source = self._checked(data)
            for chunk in chunks_of(range(len(data)), self.batch_size):
                yield source.take(chunk)[0]
            return
        inputs = (given for given, _labels in Reader.of(self.model.summary)(data))
        prefix = self._prefix(self._made_by(), _expected(data))
        for part in cut(inputs, self.batch_size):
            yield trainable(prefix(*part))

    def _source(self, data: Any, task: str | None) -> FeatureSource:
        source = self._checked(data if isinstance(data, Features) else self.extract(data))
        refuse_other_labels(source.features.labels, task, partial(self._one_output, source))
        return source

    def _checked(self, features: Features) -> FeatureSource:
        refuse_made_by_another(features, self._made_by())
        if not len(features):
            raise EmptyLoaderError(kind="Features", once=False)
        return FeatureSource(features, self.device)

    def _one_output(self, source: FeatureSource) -> Any:
        """Return what the model returns for the first sample."""
        with _mode_kept(self.model), torch.no_grad():
            self.model.eval()
            return self.model.suffix(*source.take([0])[0])


def _expected(loader: Any) -> int:
    """Return how many samples a loader tells that it has; compiling the prefix pays for many."""
    try:
        return len(loader.dataset)
    except (AttributeError, TypeError):
        return 0


def _refuse_unfit(model: object, batch_size: object, precision: object) -> None:
    if not isinstance(model, CompiledModel):
        raise WrongArgumentError(
            name="model",
            found=type(model).__name__,
            wanted="a CompiledModel",
            advice="compile your own module: tlcompile.compile_recipe(recipe, base=module)",
        )
    if not model.boundary:
        raise NothingFrozenError(reason=model.not_cacheable)
    refuse_unless_positive(batch_size=batch_size)
    if precision not in PRECISIONS:
        raise WrongArgumentError(
            name="precision",
            found=repr(precision),
            wanted=", ".join(PRECISIONS),
            advice=did_you_mean(str(precision), PRECISIONS, "write precision='exact'"),
        )


@contextlib.contextmanager
def _mode_kept(model: CompiledModel) -> Iterator[None]:
    mode = model.training
    try:
        yield
    finally:
        model.train(mode)
