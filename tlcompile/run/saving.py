"""What a run saves while it trains, and how an unfinished one goes on."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tlcompile.model.compiled import CompiledModel
from tlcompile.run.fingerprint import refuse_other
from tlcompile.run.folder import METRICS, read_record, rewrite_rows, write_judged
from tlcompile.run.phases import Phases, moving
from tlcompile.run.splits import Say
from tlcompile.training.checkpoint import Checkpoints
from tlcompile.training.judged import Judged
from tlcompile.training.loop import RUNNING, EpochDone, PhaseTrainer
from tlcompile.training.proof import FreezeProof
from tlcompile.training.state import TrainingState

MODEL, TRAINER = "model/", "trainer/"  # before the names of tensors in a checkpoint
BEST, PHASE_BEST = "best/", "phase_best/"
SHARE = 100  # times as long as saving, between two saves at ends of epochs


class Saving:
    """The checkpoints of a run, and what lies between two of them.

    Attributes:
        folder: The run's own.
        best: The weights of the best epoch so far.
        phase_best: Those of the best epoch of the running phase.
        proof: Of the running phase, where it was begun before this process.
        proofs: Of the phases that are over.
    """

    def __init__(
        self,
        folder: Path,
        phases: Phases,
        fingerprint: dict[str, Any],
        say: Say,
        *,
        inexact: bool = False,
    ) -> None:
        self.folder, self.phases, self.fingerprint, self.say = folder, phases, fingerprint, say
        self.inexact = inexact
        self.checkpoints = Checkpoints(folder, run=folder.name, say=say)
        self.best: dict[str, Tensor] | None = None
        self.phase_best: dict[str, Tensor] | None = None
        self.proof: FreezeProof | None = None
        self.proofs: list[str] = []
        self._trainer: PhaseTrainer | None = None
        self._loaded: dict[str, Tensor] = {}
        self._number = 0
        self._is_new = False  # the best weights, since the last save
        self._saved_at = time.monotonic()
        self._cost = 0.05  # seconds, until the first one
        self._judged: Judged | None = None

    def resume(self, *, never_anew: bool = False) -> bool:
        """Go on from the newest checkpoint; False where there is none.

        Raises:
            CheckpointsLostError: There were some, all are damaged, and it must not start over.
            OtherRunError: It was begun under other conditions: the difference is named.
        """
        with self.phases.ranks.first_goes_first():  # it puts damaged ones aside
            saved = self.checkpoints.newest(never_anew=never_anew)
        if saved is None:
            if (self.folder / METRICS).exists() and read_record(self.folder) is None:
                self.say(f"{self.folder} holds an unfinished run, no checkpoint: it starts over")
            return False
        data = saved.data
        then = data["fingerprint"]
        refuse_other(then, self.fingerprint, self.folder, inexact=self.inexact, say=self.say)
        state = TrainingState.from_data(data["state"])
        vars(self.phases.state).update(vars(state))
        model = self.phases.models[0]
        load_into(model, _under(MODEL, saved.tensors))
        device = self.phases.home
        kept = {name: tensor.to(device) for name, tensor in (saved.best or {}).items()}
        self.best, self.phase_best = _under(BEST, kept) or None, _under(PHASE_BEST, kept) or None
        self._loaded = _under(TRAINER, saved.tensors)
        self.proof = FreezeProof.from_data(data["proof"]) if data["proof"] else None
        self.proofs = data["proofs"]
        self.phases.precision, self.phases.told = data["precision"], data["features"]
        self._number = saved.number
        if self.phases.ranks.is_first:
            rewrite_rows(self.folder, state.history, self.phases.objective)
        where = f"phase {state.phase + 1}, " if len(self.phases.models) > 1 else ""
        self.say(
            f"resumed     {where}epoch {state.epoch + 1}, step {state.step + 1} ({self.folder})"
        )
        return True

    def began(self, trainer: PhaseTrainer, proof: FreezeProof) -> None:
        """Note what trains now; it takes over what a checkpoint of its phase has of it."""
        self._trainer, self.proof = trainer, proof
        if self._loaded:
            home, device = self.phases.home, self.phases.device
            trainer.load(
                {
                    n: t.to(device if n.startswith(RUNNING) else home)
                    for n, t in self._loaded.items()
                }
            )
            self._loaded = {}

    def note_best(self, event: EpochDone) -> None:
        """Keep the weights of an epoch that is the best of all, or of its phase."""
        home = self.phases.home  # statistics of norms are never cut, and come from the device
        tensors = {name: tensor.to(home) for name, tensor in (event.tensors or {}).items()}
        if event.is_best:
            self.best, self._is_new = tensors, True
        if event.is_phase_best and self.phases.restores_best(self.phases.state.phase):
            self.phase_best, self._is_new = tensors, True

    def note_judged(self, judged: Judged) -> None:
        """Keep what the best epoch takes for what; it is written with the next checkpoint."""
        self._judged = judged

    def write_judged(self) -> None:
        """Write which classes the best epoch takes for which, where that is new."""
        if self._judged is not None:
            write_judged(self.folder, self._judged)
            self._judged = None

    def finish_phase(self, *, restore_best: bool) -> None:
        """Go over the edge behind a phase, and save there."""
        if restore_best and self.phase_best is not None:
            load_into(self.phases.models[0], self.phase_best)
        self.phases.state.finish_phase()
        self._trainer = self.proof = None
        self._is_new |= self.phase_best is not None
        self.phase_best = None
        is_last = self.phases.state.phase == len(self.phases.models)  # its bundles come at once
        if not is_last or self.phases.ranks.largest(self.is_worth()):
            self.save()

    def is_due(self) -> bool:
        """Tell whether the last save is long ago."""
        return time.monotonic() - self._saved_at >= self.phases.recipe.run.checkpoint_seconds

    def is_worth(self) -> bool:
        """Tell whether to save at the end of an epoch: saving may take a hundredth of the time.

        Epochs of a head take milliseconds, and bringing a checkpoint to the disk ten times as long.
        """
        return self.is_due() or time.monotonic() - self._saved_at >= SHARE * self._cost

    def save(self) -> None:
        """Commit a checkpoint; when this returns, it survives a power cut."""
        started = time.monotonic()
        sums = self.phases.ranks.gather(self._trainer.sums()) if self._trainer else {}
        trainer = {**self._trainer.tensors(), **sums} if self._trainer else {}
        self.phases.gather()
        if not self.phases.ranks.is_first:
            self._is_new, self._saved_at = False, time.monotonic()
            return
        self.write_judged()
        model = self.phases.models[0]
        names = moving(self.phases.models)
        tensors = {f"{MODEL}{n}": t for n, t in model.state_dict().items() if n in names}
        tensors |= {f"{TRAINER}{n}": t for n, t in trainer.items()}
        data = {
            "state": self.phases.state.as_data(),
            "proof": self.proof.as_data() if self.proof else None,
            "proofs": self.proofs,
            "precision": self.phases.precision,
            "features": self.phases.told,
            "fingerprint": self.fingerprint,
        }
        self._number += 1
        self.checkpoints.save(self._number, tensors, data, self._best() if self._is_new else None)
        self._is_new, self._saved_at = False, time.monotonic()
        self._cost = self._saved_at - started

    def _best(self) -> dict[str, Tensor]:
        """Return the best weights of the run and of the phase, each once."""
        found = {f"{BEST}{n}": t for n, t in (self.best or {}).items()}
        return found | {f"{PHASE_BEST}{n}": t for n, t in (self.phase_best or {}).items()}

    def clear(self) -> None:
        """Remove the checkpoints of a run that is finished."""
        self.checkpoints.clear()


def load_into(model: CompiledModel, tensors: Mapping[str, Tensor]) -> None:
    """Copy values into a model's tensors, which keep their layout."""
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)


def has_tensors(model: CompiledModel, tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether a model's tensors have these values, to the bit."""
    state = model.state_dict()
    return all(torch.equal(state[name], tensor) for name, tensor in tensors.items())


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
