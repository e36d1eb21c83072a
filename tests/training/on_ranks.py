"""What test_ranks.py trains on one process and on two; as a program it is one of the two."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from phase_trainers import phase_trainer
from safetensors.torch import save_file
from tiny import TinyNet, make_recipe
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tlcompile.compiler import compile_recipe
from tlcompile.data.targets import TensorTargets
from tlcompile.features.prefix import Prefix
from tlcompile.features.sources import InMemory, KeptSource, compute_rows
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.loop import EpochDone, PhaseTrainer
from tlcompile.training.ranks import Ranks, join_ranks

GLOBAL_BATCH = 8
TRAIN, VAL = 26, 11  # 8 + 8 + 8 + 2: the second rank gets nothing of the last batch
EPOCHS = 3  # 12 steps


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


# name -> (network, freeze point, changes of the trainer)
CASES: dict[str, tuple[Callable[[], nn.Module], str, dict[str, Any]]] = {
    "linear": (lambda: TinyNet(dropout=0), "flatten", {}),
    "convolution": (convolutions, "0", {}),
    "pieces": (convolutions, "0", {"accumulate": 2, "micro_batch": 2}),
    "dropout": (TinyNet, "flatten", {}),
    "batch norm": (lambda: TinyNet(dropout=0), "conv1", {}),
}


def model_of(case: str) -> CompiledModel:
    build, freeze, _ = CASES[case]
    torch.manual_seed(0)
    recipe = make_recipe(base={"model": "digits_net", "size": 8}, freeze=freeze)
    return compile_recipe(recipe, build(), num_classes=2)


def source(model: CompiledModel, count: int, seed: int) -> KeptSource:
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    prefix = Prefix(model, 4, torch.device("cpu"))
    rows = compute_rows(lambda pairs: images[[i for i, _ in pairs]], prefix, count)
    labels = (images.mean(dim=(1, 2, 3)) > 0).long()
    return KeptSource(InMemory(rows), TensorTargets(labels))


def trainer_of(case: str, ranks: Ranks, model: CompiledModel) -> PhaseTrainer:
    changes = {"epochs": EPOCHS, "options": {"momentum": 0.9}, "lr": 0.05, **CASES[case][2]}
    return phase_trainer(
        model,
        source(model, TRAIN, 1),
        source(model, VAL, 2),
        batch_size=GLOBAL_BATCH // ranks.world,
        ranks=ranks,
        **changes,
    )


def trained(case: str, ranks: Ranks) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return the weights and the rows of the epochs, on the first rank or on one process."""
    model = model_of(case)
    rows = [
        e.row.as_data() for e in trainer_of(case, ranks, model).run() if isinstance(e, EpochDone)
    ]
    return {f"{case}/{name}": t for name, t in model.state_dict().items()}, rows


def resumed(case: str, ranks: Ranks, steps: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Stop after some steps, go on with a new model and trainer, as another process would."""
    model = model_of(case)
    first = trainer_of(case, ranks, model)
    events = first.run()
    for _ in range(steps):
        next(events)
    sums = ranks.gather(first.sums())
    held = [{**first.tensors(), **sums}, {n: t.clone() for n, t in model.state_dict().items()}]
    dist.broadcast_object_list(held)  # what the first rank saved
    model = model_of(case)
    model.load_state_dict(held[1])
    second = trainer_of(case, ranks, model)
    vars(second.state).update(vars(first.state))
    second.load(held[0])
    rows = [e.row.as_data() for e in second.run() if isinstance(e, EpochDone)]
    return {f"{case}/{name}": t for name, t in model.state_dict().items()}, rows


def sent(case: str, ranks: Ranks) -> int:
    """Return how many numbers a step sends."""
    counted: list[int] = []

    def count(_state, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, and not as text
        counted.append(bucket.buffer().numel())
        return (
            dist.all_reduce(bucket.buffer(), async_op=True)
            .get_future()
            .then(lambda f: f.value()[0])
        )

    model = model_of(case)
    module = ranks.wrap(model.suffix_module())
    assert isinstance(module, DistributedDataParallel)
    module.register_comm_hook(None, count)
    rows = source(model, 4, 1).batches([range(4)], 0)
    module(*next(rows)[0]).sum().backward()
    return sum(counted)


def talk(ranks: Ranks) -> dict[str, Any]:
    """Return what the ranks tell each other."""
    with ranks.first_goes_first():
        pass
    summed = ranks.sum({"count": torch.tensor(3 + ranks.rank), "x": torch.tensor(0.5)})
    buffer = torch.tensor([1.0 + ranks.rank])
    ranks.same_buffers([buffer])
    gathered = ranks.gather({f"of {ranks.rank}": torch.tensor(ranks.rank)})
    return {
        "says": ranks.first_says({"from": ranks.rank}),
        "sum": {name: tensor.item() for name, tensor in summed.items()},
        "largest": ranks.largest(5 - ranks.rank),
        "buffer": buffer.item(),
        "gathered": {name: tensor.item() for name, tensor in gathered.items()},
        "parts": [list(ranks.part(range(n), 2)) for n in (8, 5, 3)],
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    ranks = join_ranks()
    told: dict[str, Any] = {"talk": talk(ranks), "world": ranks.world}
    tensors: dict[str, Tensor] = {}
    for case in CASES:
        states, told[case] = trained(case, ranks)
        tensors |= states
    again, told["resumed rows"] = resumed("batch norm", ranks, steps=6)
    tensors |= {f"resumed {name}": tensor for name, tensor in again.items()}
    told["sent"] = sent("convolution", ranks)
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / f"{ranks.rank}.safetensors")
    (folder / f"{ranks.rank}.json").write_text(json.dumps(told))
    ranks.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
