"""Many heads over the same rows, trained as one, against one head by torch.optim (P4).

    python benchmarks/many_heads.py                        # a minute
    python benchmarks/many_heads.py --optimizer adamw

64 heads, 8 rates x 8 decays with one seed, read the same random rows of 2048 numbers in batches of 64.
An epoch trains over all rows and judges by a quarter as many: loss and accuracy, ours also macro F1 and
top 5. One head is trained by a plain PyTorch loop over rows in memory, and by a run of our own. `exact`
gives each head its own bits; `fast` adds up in the order of one wide product.

A ratio is what all heads cost in heads. The limit is 64 heads' matrix products at this machine's rate of
large ones, over the time of the plain loop.
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial

import torch
from cached import Recipe
from side import in_turn, spent
from table import Row, show_table
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.compiler import compile_recipe
from tlcompile.data.targets import TensorTargets
from tlcompile.features.sources import InMemory, KeptSource
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.freed_memory import keep_freed_memory
from tlcompile.training.fused import FusedTrainer
from tlcompile.training.fused_block import Member
from tlcompile.training.goal import simple_goal
from tlcompile.training.groups import Group
from tlcompile.training.loop import PhaseTrainer, Settings
from tlcompile.training.objective import Objective
from tlcompile.training.optim import OPTIMIZERS, Optimizers
from tlcompile.training.proof import FreezeProof
from tlcompile.training.schedule import build_schedule

OPTIONS = {"sgd": {"momentum": 0.9}, "adam": {}, "adamw": {}}
BATCH, EPOCHS = 64, 2


class Net(nn.Module):
    """A frozen layer that is never run here, and the head behind it."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.low, self.fc = nn.Linear(4, width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        return self.fc(torch.tanh(self.low(x)))


def compiled(width: int, classes: int) -> CompiledModel:
    """Return the net, frozen below its head."""
    sections = {"base": {"model": "own"}, "inputs": {"x": {"shape": [4]}}, "head": "keep",
                "freeze": {"upto": ["tanh"]}}  # fmt: skip
    return compile_recipe(Recipe.model_validate(sections), base=Net(width, classes))


def rows_of(count: int, width: int, classes: int, seed: int) -> KeptSource:
    """Return random rows with random classes."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=draw)
    return KeptSource(InMemory((torch.randn(count, width, generator=draw),)), TensorTargets(labels))


def plain(optimizer: str, train: KeptSource, val: KeptSource, head: nn.Linear) -> None:
    """Train one head as one writes it by hand."""
    (rows, labels), (seen, wanted) = held(train), held(val)
    moved = OPTIMIZERS[optimizer](head.parameters(), lr=0.01, **OPTIONS[optimizer])
    for _ in range(EPOCHS):
        total, right = 0.0, 0
        for batch in torch.randperm(len(rows)).split(BATCH):
            moved.zero_grad()
            loss = F.cross_entropy(head(rows[batch]), labels[batch])
            loss.backward()
            moved.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            for some, classes in zip(seen.split(BATCH), wanted.split(BATCH), strict=True):
                logits = head(some)
                total += F.cross_entropy(logits, classes).item()
                right += (logits.argmax(1) == classes).sum().item()


def held(source: KeptSource) -> tuple[Tensor, Tensor]:
    """Return rows and labels of a source as tensors."""
    every = torch.arange(len(source.targets))
    ((rows,), labels) = next(source.batches([every.tolist()], 0))
    return rows, labels


def heads(model: CompiledModel, optimizer: str, objective: Objective, count: int) -> list[Member]:
    """Return members with 8 rates each, and as many decays as that takes."""
    weights = {name: p.detach().clone() for name, p in model.trainable()}
    rates = [10 ** (-3 + 0.25 * place) for place in range(8)]
    decays = [10 ** (-5 + 0.5 * place) for place in range(-(-count // 8))]
    found = []
    for decay, lr in itertools.islice(itertools.product(decays, rates), count):
        options = {**OPTIONS[optimizer], "weight_decay": decay}
        groups = (Group("all", tuple(weights), optimizer, lr, options),)
        settings = Settings(EPOCHS, BATCH, 0, "val/accuracy", rising=True)
        cosine = build_schedule("cosine")
        found.append(Member(f"{lr:g} {decay:g}", weights, groups, settings, objective, cosine))
    return found


def ours_alone(model: CompiledModel, one: Member, train: KeptSource, val: KeptSource) -> None:
    """Train one head as a run of its own does."""
    trainer = PhaseTrainer(
        model, train, val, objective=one.objective, schedule=one.schedule, settings=one.settings,
        optimizers=Optimizers(one.groups, dict(model.trainable())), proof=FreezeProof.take(model),
    )  # fmt: skip
    for _ in trainer.run():
        pass


def fused(
    model: CompiledModel, members: list[Member], train: KeptSource, val: KeptSource, *, exact: bool
) -> None:
    """Train all heads as one."""
    for _ in FusedTrainer(model, train, val, members, exact=exact).run():
        pass


def compare(
    optimizer: str, count: int, width: int, classes: int, samples: int, rounds: int
) -> list[Row]:
    """Run all sides in turn; return a row for each precision and baseline."""
    model = compiled(width, classes)
    objective = Objective({"": simple_goal("classification", classes)})
    train, val = (rows_of(n, width, classes, n) for n in (samples, samples // 4))

    def new(heads_wanted: int) -> list[Member]:
        return heads(model, optimizer, objective, heads_wanted)

    works = {
        "plain": lambda: plain(optimizer, train, val, nn.Linear(width, classes)),
        "alone": lambda: ours_alone(model, new(1)[0], train, val),
        "exact": lambda: fused(model, new(count), train, val, exact=True),
        "fast": lambda: fused(model, new(count), train, val, exact=False),
    }
    for work in works.values():  # imports and pages
        work()
    sides = {name: partial(spent, work) for name, work in works.items()}
    found = in_turn(sides, rounds)
    steps = EPOCHS * -(-samples // BATCH)
    products = 4 * count * width * classes * (samples + samples // 8) * EPOCHS
    print(f"one head: {1e6 * found['plain'].cpu / steps:.0f} us a step by hand, all counted")
    return [
        Row(
            "P4",
            f"{count} heads, {width} -> {classes}, {optimizer}, {how}, against one {name}",
            found[side],
            found[how],
            "<= 8",
            products / matrix_rate() / found[side].cpu,
            inverse=True,
        )
        for side, name in (("plain", "by hand"), ("alone", "of ours"))
        for how in ("exact", "fast")
    ]


def matrix_rate() -> float:
    """Return this machine's FLOPs a CPU second in large matrix products."""
    side = 1024
    square = torch.randn(side, side)
    return 2 * side**3 / min(spent(lambda: square @ square).cpu for _ in range(9))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--heads", type=int, default=64)
    parser.add_argument("--optimizer", choices=sorted(OPTIONS), default="sgd")
    parser.add_argument("--width", type=int, default=2048, help="numbers a row")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--samples", type=int, default=2048, help="rows to train on")
    parser.add_argument("--rounds", type=int, default=5, help="in turn")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does
    show_table(
        compare(
            given.optimizer, given.heads, given.width, given.classes, given.samples, given.rounds
        )
    )


if __name__ == "__main__":
    main()
