"""Compile timm's whole zoo on meta: which models compile, which are refused, and by which error.

    python benchmarks/timm_zoo.py out.jsonl [--equal] [--only 'resnet*']

One line a model goes into the file, which a run that was stopped goes on with; without a word on the
command line but the file, the table of a finished file is printed again in a second. `--equal` also
runs each model below --small parameters on real tensors, and compares it with the original to the bit.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import json
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch

from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.schema import Recipe

LIMIT = 2e9  # bytes of fp32 parameters; bar C5
ATTEMPTS = {"keep": ("none", "keep"), "auto": ("head", "auto")}


def main() -> None:
    """Compile what the file does not have yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--equal", action="store_true")
    parser.add_argument("--small", type=float, default=10e6, help="parameters")
    parser.add_argument("--only", default="*", help="a pattern of names")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    done = {row["name"] for row in rows_of(options.file)}
    with options.file.open("a") as file:
        for name in fnmatch.filter(timm.list_models(), options.only):
            if name not in done:
                row = attempt(name, options.small if options.equal else 0)
                file.write(json.dumps(row) + "\n")
                file.flush()
                gc.collect()
    print_table(rows_of(options.file))


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Read what is known already."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def attempt(name: str, small: float) -> dict[str, Any]:
    """Compile one model in each way, and say what came of it."""
    began = time.perf_counter()
    with torch.device("meta"):
        size = sum(p.numel() for p in timm.create_model(name).parameters())
    row: dict[str, Any] = {"name": name, "parameters": size}
    if size * 4 > LIMIT:
        return row
    for way, (freeze, head) in ATTEMPTS.items():
        sections = {"base": {"model": f"timm/{name}"}, "freeze": {"upto": [freeze]}, "head": head}
        try:
            model = prove_recipe(Recipe.model_validate(sections), num_classes=7)
            row[way], row["vertices"] = "ok", len(model.summary.vertices)
            row["notes"] = list(model.summary.notes)
        except TLCompileError as error:
            row[way] = f"{error.slug}: {error.facts().get('found', error.headline())}"
        except Exception as error:
            row[way] = f"CRASH {type(error).__name__}: {error}"[:300]
    if row["keep"] == "ok" and size <= small:
        row["equal"] = equal(name)
    return {**row, "seconds": round(time.perf_counter() - began, 2)}


def equal(name: str) -> bool:
    """Compare with the original in eval mode, on two random images of its own size."""
    torch.manual_seed(0)
    module = timm.create_model(name).eval()
    channels, *sides = timm.get_pretrained_cfg(name).input_size
    sections = {
        "base": {"model": "own", "size": sides[0]},
        "freeze": {"upto": ["none"]},
        "head": "keep",
    }
    x = torch.randn(2, channels, *sides)
    with torch.no_grad():
        theirs = module(x)
        ours = compile_recipe(Recipe.model_validate(sections), base=module).eval()(x)
    if isinstance(theirs, torch.Tensor):
        return torch.equal(ours, theirs)
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print what compiles, what is refused and why."""
    small = [row for row in rows if "keep" in row]
    for way in ATTEMPTS:
        fine = sum(row[way] == "ok" for row in small)
        print(f"head: {way:5} {fine} of {len(small)} compile ({fine / max(1, len(small)):.2%})")
        for row in small:
            if row[way] != "ok" and (way == "keep" or row[way].startswith("CRASH")):
                print(f"    {row['name']}: {row[way]}")
    compared = [row for row in small if "equal" in row]
    print(f"equal to the bit in eval: {sum(row['equal'] for row in compared)} of {len(compared)}")
    for row in compared:
        if not row["equal"]:
            print(f"    {row['name']} differs")
    print(f"{len(rows) - len(small)} have more than {LIMIT / 1e9:.0f} GB of parameters")
    print(f"timm {timm.__version__}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
