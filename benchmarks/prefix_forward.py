"""P6: a forward of the frozen prefix, eager fp32 contiguous against fp32-fused and fast.

    python benchmarks/prefix_forward.py [--models resnet18 resnet50 ...] [--batch 16] [--repeats 7]
                                        [--threads 1] [--eager]

Everything but the classifier is frozen, and the weights are random: they do not change the time.
Each side has a process of its own, and runs once a round, in turn: ours as a run has it, where freed
memory serves the next tensors (run/freed_memory.py). The baseline is the prefix of `exact`: the base's
own eager kernels in fp32, contiguous. Each precision runs as it is, and by torch.compile, whose own
seconds are told apart. The limit is the baseline against the same FLOPs at the rate of a large matrix
product of the precision's dtype, on this machine. The bar of 8x for `fast` is meant for a CPU with
AMX; where there is only AVX-512 BF16, or neither, the limit says what can be had.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack

import torch
from side import Pause, Side, Spent, median
from table import Row, show_table
from torch import Tensor
from torchvision.models import get_model

from tlcompile.compiler import compile_recipe
from tlcompile.features.hard import FAST, FUSED, harden
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.freed_memory import keep_freed_memory

MODELS = ("resnet18", "resnet50", "mobilenet_v3_small", "vit_b_16", "convnext_tiny")
WANTED = {FUSED: ">= 1.4", FAST: ">= 8 with AMX"}
DTYPES = {FUSED: torch.float32, FAST: torch.bfloat16}
SIDE = 2048  # of the square matrices whose product gives the rates
FEW, MANY = 1, 10**12  # images that are announced: never, and always worth compiling for

Forward = Callable[[Tensor], tuple[Tensor, ...]]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS, help="of torchvision")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    rates = {name: matrix_rate(dtype) for name, dtype in DTYPES.items()}
    ways = {"eager": FEW} if options.eager else {"eager": FEW, "compiled": MANY}
    rows: list[Row] = []
    for name in options.models:
        rows += rows_of(name, options.batch, options.repeats, ways, rates)
    show_table(rows)
    told = ", ".join(f"{rates[n] / 1e9:.0f} GFLOP/s in {DTYPES[n]}" for n in rates)
    print(f"matrix products of {SIDE}: {told}, by CPU time")
    print(f"batches of {options.batch}, medians of {options.repeats} rounds, seconds of one batch")


def rows_of(
    name: str, batch: int, repeats: int, ways: dict[str, int], rates: dict[str, float]
) -> list[Row]:
    """Return a model's rows, one for each way to run it."""
    threads = torch.get_num_threads()
    sides = {("exact", ""): Side(forwards, name, batch, threads, "", FEW)}
    for precision in (FUSED, FAST):
        for way, images in ways.items():
            sides[precision, way] = Side(forwards, name, batch, threads, precision, images)
    found: dict[tuple[str, str], list[Spent]] = {side: [] for side in sides}
    with ExitStack() as stack:
        running = {title: stack.enter_context(side) for title, side in sides.items()}
        for side in running.values():
            side.step()  # the model is built
        for _ in range(repeats + 1):
            for title, side in running.items():
                found[title].append(side.step())
    medians = {title: median(times[1:]) for title, times in found.items()}
    base = medians.pop(("exact", ""))
    flops = batch * sum(row.flops for row in frozen(name).summary.vertices if row.frozen)
    return [
        Row(
            "P6",
            f"{name} {precision} {way}, first batch {found[precision, way][0].cpu:.1f} s",
            base,
            took,
            WANTED[precision],
            base.cpu * rates[precision] / flops,
        )
        for (precision, way), took in medians.items()
    ]


def forwards(
    pause: Pause, name: str, batch: int, threads: int, precision: str, images: int
) -> None:
    """Run the prefix, a batch a step; ours in a process as a run has it, the baseline in a plain one."""
    torch.set_num_threads(threads)
    model = frozen(name)
    run: Forward = model.prefix
    if precision:
        keep_freed_memory()
        run = harden(model, precision, torch.device("cpu"), images=images, say=print)
    given = torch.randn(batch, *next(iter(model.summary.sample_shapes.values())))
    pause()
    while True:
        run(given)
        pause()


def frozen(name: str) -> CompiledModel:
    """Return a model of torchvision with everything but its classifier frozen."""
    recipe = Recipe.model_validate({"base": {"model": name}, "freeze": {"upto": "head"}})
    return compile_recipe(recipe, get_model(name, weights=None), num_classes=2).eval()


def matrix_rate(dtype: torch.dtype) -> float:
    """Return the FLOP a CPU second of a large matrix product."""
    left, right = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    found = []
    for _ in range(4):
        start = time.process_time()
        left @ right
        found.append(time.process_time() - start)
    return 2 * SIDE**3 / statistics.median(found[1:])


if __name__ == "__main__":
    main()
