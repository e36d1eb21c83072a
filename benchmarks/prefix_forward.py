"""P6: a forward of the frozen prefix, eager fp32 contiguous against fp32-fused and fast.

    python benchmarks/prefix_forward.py [--models resnet18 resnet50 ...] [--batch 16] [--repeats 7]
                                        [--threads 1] [--eager]

Everything but the classifier is frozen, and the weights are random: they do not change the time.
One process; every side runs once a round, in turn. The baseline is the prefix of `exact`: the base's
own eager kernels in fp32, contiguous. Each precision runs as it is, and by torch.compile, whose own
seconds are told apart. The limit is the baseline against the same FLOPs at the rate of a large matrix
product of the precision's dtype, on this machine. The bar of 8x for `fast` is meant for a CPU with
AMX; where there is only AVX-512 BF16, or neither, the limit says what can be had.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable

import torch
from side import Spent, in_turn, now, spent
from table import Row, show_table
from torch import Tensor
from torchvision.models import get_model

from tlcompile.compiler import compile_recipe
from tlcompile.features.hard import FAST, FUSED, harden
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe

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
    rows: list[Row] = []
    for name in options.models:
        rows += rows_of(name, options.batch, options.repeats, options.eager, rates)
        gc.collect()
    show_table(rows)
    told = ", ".join(f"{rates[n] / 1e9:.0f} GFLOP/s in {DTYPES[n]}" for n in rates)
    print(f"matrix products of {SIDE}: {told}, by CPU time")
    print(f"batches of {options.batch}, medians of {options.repeats} rounds, seconds of one batch")


def rows_of(name: str, batch: int, repeats: int, eager: bool, rates: dict[str, float]) -> list[Row]:
    """Return a model's rows, one for each way to run it."""
    model = frozen(name)
    shape = next(iter(model.summary.sample_shapes.values()))
    images = torch.randn(batch, *shape)
    forwards: dict[str, tuple[str, Forward]] = {"exact": ("", model.prefix)}
    for precision in (FUSED, FAST):
        for way, count in (("eager", FEW), ("compiled", MANY)):
            if eager and count == MANY:
                continue
            run = harden(model, precision, torch.device("cpu"), images=count, say=print)
            start = now()
            run(images)
            told = f", first batch {(now() - start).cpu:.0f} s" if count == MANY else ""
            forwards[f"{precision} {way}{told}"] = (precision, run)
    sides = {title: timed(run, images) for title, (_, run) in forwards.items()}
    for side in sides.values():
        side()  # once unmeasured
    medians = in_turn(sides, repeats)
    base = medians.pop("exact")
    flops = batch * sum(row.flops for row in model.summary.vertices if row.frozen)
    return [
        Row(
            "P6",
            f"{name} {title}",
            base,
            took,
            WANTED[forwards[title][0]],
            base.cpu * rates[forwards[title][0]] / flops,
        )
        for title, took in medians.items()
    ]


def frozen(name: str) -> CompiledModel:
    """Return a model of torchvision with everything but its classifier frozen."""
    recipe = Recipe.model_validate({"base": {"model": name}, "freeze": {"upto": "head"}})
    return compile_recipe(recipe, get_model(name, weights=None), num_classes=2).eval()


def timed(run: Forward, images: Tensor) -> Callable[[], Spent]:
    """Return what runs a forward and tells what it took."""
    return lambda: spent(lambda: run(images))


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
