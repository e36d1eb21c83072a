"""What test_sharding.py trains on one process and on two; as a program it is one of the two."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from on_ranks import GLOBAL_BATCH, TRAIN, VAL, convolutions, source
from phase_trainers import phase_trainer
from safetensors.torch import save_file
from tiny import TinyNet, make_recipe
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.refuse_sharding import WHOLE_MATRICES
from tlcompile.training import sharding
from tlcompile.training.averages import Average, Ema, Swa
from tlcompile.training.compute import Compute
from tlcompile.training.constraints import Constraint, NormBetween, units_of
from tlcompile.training.gradients import ClipNorm
from tlcompile.training.groups import Group
from tlcompile.training.loop import EpochDone, PhaseTrainer, scored
from tlcompile.training.optim import OPTIMIZERS, Optimizers
from tlcompile.training.penalties import Penalty
from tlcompile.training.proof import FreezeProof
from tlcompile.training.ranks import Ranks, join_ranks
from tlcompile.training.sharding import gather_into, local, sharded, whole

CPU = torch.device("cpu")
sharding.ALONE_FROM = 100  # so that small layers are gathered one by one, too


class Tied(nn.Module):
    """A bare parameter, a layer that is used twice, and two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.flat = nn.Conv2d(3, 4, 3, padding=1), nn.Flatten()
        self.shift = nn.Parameter(torch.zeros(4, 8, 8))
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.one, self.other = nn.Linear(256, 12), nn.Linear(256, 12)
        self.other.weight = self.one.weight
        self.fc = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = self.stem(x) + self.shift
        x = torch.tanh(self.twice(torch.tanh(self.twice(x))))
        return self.fc(torch.tanh(self.one(self.flat(x))) * self.other(self.flat(x)))


SGD = {"optimizer": "sgd", "lr": 0.05, "options": {"momentum": 0.9, "weight_decay": 0.01}}
ADAMW = {"optimizer": "adamw", "lr": 0.01, "options": {"weight_decay": 0.1}}
# name -> (network, freeze point, changes of the trainer); each takes 12 steps
CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "sgd": (convolutions, "0", {**SGD, "epochs": 6, "accumulate": 2, "average": "ema"}),
    "adamw": (convolutions, "0", {**ADAMW, "epochs": 3}),
    "batch norm": (lambda: TinyNet(dropout=0), "conv1", {**SGD, "epochs": 3, "average": "swa"}),
    "tied": (Tied, "stem", {**SGD, "epochs": 3}),
}


def model_of(case: str) -> CompiledModel:
    build, freeze, _ = CASES[case]
    torch.manual_seed(0)
    recipe = make_recipe(base={"model": "digits_net", "size": 8}, freeze=freeze)
    return compile_recipe(recipe, build(), num_classes=2)


def trainer_of(case: str, ranks: Ranks, model: CompiledModel, like: CompiledModel) -> PhaseTrainer:
    """Return what trains `model`, which may be a copy of `like` that is cut."""
    changes = dict(CASES[case][2])
    kinds: dict[str, Average] = {"ema": Ema(model, 0.9), "swa": Swa(model, 2)}
    held = {n: model.tree.get_submodule(n.rpartition(".")[0]) for n, _ in model.trainable()}
    units = {n: units_of(held[n], p) for n, p in model.trainable()}
    return phase_trainer(
        model,
        source(like, TRAIN, 1),
        source(like, VAL, 2),
        batch_size=GLOBAL_BATCH // ranks.world,
        ranks=ranks,
        proof=FreezeProof.take(like),
        average=kinds.get(changes.pop("average", "")),
        before_step=(Penalty(dict.fromkeys(held, 1e-3), {}), ClipNorm(0.1)),
        after_step=(Constraint((NormBetween(0.0, 0.4),), units),),
        **changes,
    )


class Run:
    """A model in training; `cut` over the ranks, or as a whole on each."""

    def __init__(self, case: str, ranks: Ranks, *, cut: bool) -> None:
        self.model, self.ranks, self.is_cut = model_of(case), ranks, cut
        self.case = case
        self.begin()

    def begin(self) -> None:
        self.copy = sharded(self.model, self.ranks, CPU) if self.is_cut else self.model
        self.trainer = trainer_of(self.case, self.ranks, self.copy, self.model)

    def weights(self) -> dict[str, Tensor]:
        if self.is_cut:
            gather_into(self.model, self.copy)
        return {n: t.clone() for n, t in self.model.state_dict().items()}

    def finished(self) -> list[Any]:
        return [event for event in self.trainer.run() if isinstance(event, EpochDone)]

    def saved(self, steps: int) -> tuple[Any, ...]:
        """Take some steps, and return what a checkpoint would hold."""
        events = self.trainer.run()
        for _ in range(steps):
            next(events)
        sums = self.ranks.gather(self.trainer.sums())
        held = [{**self.trainer.tensors(), **sums}, self.weights()]
        dist.broadcast_object_list(held)  # the first rank saves
        return (*held, self.trainer.state)

    def load(self, saved: tuple[Any, ...]) -> None:
        self.model.load_state_dict(saved[1])
        self.begin()
        vars(self.trainer.state).update(vars(saved[2]))
        self.trainer.load(saved[0])


def trained(case: str, ranks: Ranks, *, cut: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the last weights and those of the best epoch, and what the epochs said."""
    run = Run(case, ranks, cut=cut)
    done = run.finished()
    states = {**run.weights(), **best_of(done)}
    return states, {"rows": [event.row.as_data() for event in done], "sizes": sizes(run)}


def best_of(done: list[Any]) -> dict[str, Tensor]:
    """Return the weights of the best epoch: averages, where there are some."""
    best = [event.tensors for event in done if event.tensors is not None][-1]
    return {f"best/{name}": tensor for name, tensor in best.items()}


def sizes(run: Run) -> dict[str, list[list[int]]]:
    """Return how many numbers there are of each tensor, and how many of them are here."""
    state = {n: t for n, t in run.trainer.optimizers.tensors().items() if t.dim()}
    grads = {n: p.grad for n, p in run.copy.trainable() if p.grad is not None}
    kinds = {"weights": dict(run.copy.trainable()), "gradients": grads, "state": state}
    return {
        kind: [[t.numel(), local(t).numel()] for t in tensors.values()]
        for kind, tensors in kinds.items()
    }


def resumed(case: str, ranks: Ranks, *, first: bool, then: bool) -> dict[str, Tensor]:
    """Stop in the middle of an epoch, and go on: cut or not before, cut or not behind."""
    held = Run(case, ranks, cut=first).saved(steps=6)
    run = Run(case, ranks, cut=then)
    run.load(held)
    done = run.finished()
    return {**run.weights(), **best_of(done)}


def steps(name: str, ranks: Ranks) -> float:
    """Return how far three steps of an optimizer of each kind, cut and not, are apart."""
    models = [run.copy for run in (Run("tied", ranks, cut=cut) for cut in (True, False))]
    rows = next(source(model_of("tied"), 8, 1).batches([range(8)], 0))[0]
    for model in models:
        names = tuple(n for n, _ in model.trainable())
        optimizers = Optimizers([Group("all", names, name, 0.01, {})], dict(model.trainable()))
        for _ in range(3):
            optimizers.zero_grad()
            model.suffix(*rows).square().mean().backward()
            optimizers.step()
    cut, plain = (dict(model.trainable()) for model in models)
    return max(float((whole(cut[n]) - p.detach()).abs().max()) for n, p in plain.items())


def skipped(ranks: Ranks) -> bool:
    """Tell whether fp16 skips a step whose gradients overflow in the first rank's part alone."""
    compute = Compute("fp16", CPU)
    run = Run("sgd", ranks, cut=True)
    compute.scaled(torch.tensor(1.0))
    for _, parameter in run.copy.trainable():
        parameter.grad = torch.zeros_like(parameter)
        local(parameter.grad).fill_(math.inf if ranks.is_first else 0.0)
    return not compute.unscale(run.trainer.optimizers.each)


def judged(ranks: Ranks, count: int) -> dict[str, Any]:
    """Return the score over so many samples."""
    run = Run("sgd", ranks, cut=ranks.world > 1)
    val, objective = source(run.model, count, 2), run.trainer.objective
    sums = scored(run.copy, val, objective=objective, batch_size=2, ranks=ranks)
    return sums.score().as_data()


def precise(precision: str, ranks: Ranks, *, cut: bool) -> dict[str, Tensor]:
    CASES[precision] = (convolutions, "0", {**SGD, "epochs": 3, "compute": Compute(precision, CPU)})
    return trained(precision, ranks, cut=cut)[0]


def main(folder: Path, words: str = "") -> None:
    torch.set_num_threads(1)
    ranks = join_ranks()
    told: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}

    def keep(what: str, states: dict[str, Tensor]) -> None:
        tensors.update({f"{what}/{n}": t for n, t in states.items()})

    for case in CASES if words else ("sgd", "adamw"):
        states, told[case] = trained(case, ranks, cut=True)
        keep(case, states)
    keep("resumed", resumed("sgd", ranks, first=True, then=True))
    if words:
        for case in CASES:
            keep(f"{case} whole", trained(case, ranks, cut=False)[0])
        keep("no longer cut", resumed("sgd", ranks, first=True, then=False))
        keep("cut from now on", resumed("adamw", ranks, first=False, then=True))
        told["steps"] = {n: steps(n, ranks) for n in OPTIMIZERS if n not in WHOLE_MATRICES}
        told["skipped"] = skipped(ranks)
        told["judged"] = {str(count): judged(ranks, count) for count in (1, 5, 8)}
        for precision in ("bf16", "fp16"):
            keep(precision, precise(precision, ranks, cut=True))
            keep(f"{precision} whole", precise(precision, ranks, cut=False))
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / f"{ranks.rank}.safetensors")
    (folder / f"{ranks.rank}.json").write_text(json.dumps(told))
    ranks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
