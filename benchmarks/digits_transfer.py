"""Transfer against the same network from scratch at the same budget, over five seeds.

    python benchmarks/digits_transfer.py

Digits 5-9 from 10 images a class: recipes/digits.yaml as it is, and with `base.weights=none
freeze=none`. The budget is the number of epochs; everything else is equal. Accuracy of the last
epoch on 449 images.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from tlcompile import load_recipe, train

RECIPE = Path(__file__).parents[1] / "recipes" / "digits.yaml"
SEEDS = range(5)
BUDGETS = (2, 5, 10, 40)
SIDES = {
    "transfer": [],
    "scratch": ["base.weights=none", "freeze=none"],
}


def accuracies(overrides: list[str], epochs: int) -> list[float]:
    """Return the last epoch's validation accuracy for each seed, in per cent."""
    found = []
    for seed in SEEDS:
        texts = [*overrides, f"fine_tune.epochs={epochs}", f"fine_tune.seed={seed}"]
        with tempfile.TemporaryDirectory() as folder:
            _model, history = train(load_recipe(RECIPE, texts), folder=folder)
        score = history[-1].val
        assert score is not None
        found.append(100 * score.accuracy)
    return found


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print("epochs | " + " | ".join(f"{side}: mean (min to max)" for side in SIDES))
    for epochs in BUDGETS:
        cells = []
        for overrides in SIDES.values():
            found = accuracies(overrides, epochs)
            mean = statistics.mean(found)
            cells.append(f"{mean:.1f} % ({min(found):.1f} to {max(found):.1f})")
        print(f"{epochs:>6} | " + " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
