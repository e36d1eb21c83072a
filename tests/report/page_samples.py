"""Pages' data made by hand; every name in them tries to leave its place."""

from __future__ import annotations

import math
from itertools import product

from tlcompile.report.pages import (
    ClassRow,
    Command,
    Epoch,
    Output,
    Predicted,
    RunData,
    Scatter,
    SplitScore,
    SweepData,
    SweepPoint,
    Tile,
)

EVIL = '<img src=x onerror=errors.push("broken")>'
ENDS = "</script><script>errors.push('ended')</script>"
QUOTES = "a\"b'c & d"
DOT = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNsYGBiYAAAApIAhPd8o1gAAAAASUVORK5CYII="
)


def epochs(count: int = 3, phase: str = "main", first: int = 1) -> tuple[Epoch, ...]:
    return tuple(
        Epoch(
            number,
            phase,
            {
                "train/loss": 1 / number,
                "val/loss": 2 / number,
                "train/accuracy": 1 - 0.5 / number,
                "val/accuracy": 1 - 0.6 / number,
            },
        )
        for number in range(first, first + count)
    )


def mistakes_sample() -> Predicted:
    return Predicted(
        "Mistakes", f"4 of 30 {ENDS}", (Tile((DOT,), EVIL, QUOTES, ENDS, "97 %", pixelated=True),)
    )


def numbers_sample(count: int = 1) -> Predicted:
    scatter = Scatter(EVIL, ((0.0, 1.0), (2.0, 1.5)), 40, 0.75)
    tile = Tile((DOT,), QUOTES, f"{ENDS} 1.5", f"{ENDS} 2")
    return Predicted(f"Numbers: {ENDS}", EVIL, (tile,), (scatter,) * count)


def masks_sample() -> Predicted:
    tile = Tile((DOT, DOT, DOT), QUOTES, "", f"3 %: mostly {EVIL} taken for {ENDS}")
    return Predicted("Masks", EVIL, (tile,), colours=((EVIL, "#000000"), (ENDS, "#e69f00")))


def run_sample(**more: object) -> RunData:
    """Return a run whose three classes have names that try to leave their places."""
    names = (EVIL, ENDS, QUOTES)
    rows = tuple(ClassRow(name, 10, 8, 0.8, 0.7, 0.75) for name in names)
    matrix = ((8, 1, 1), (2, 8, 0), (0, 0, 10))
    data: dict[str, object] = {
        "name": ENDS,
        "folder": "runs/x",
        "headline": "accuracy 80.0 %",
        "facts": (("base", EVIL),),
        "epochs": epochs(),
        "monitor": "val/accuracy",
        "best": 2,
        "reading": ("good fit", QUOTES, ""),
        "scores": (
            SplitScore("train", 50, {"accuracy": 0.9, "loss": 0.5}, (0.8, 0.95)),
            SplitScore("val", 30, {"accuracy": 0.8, "loss": 0.7, "f1": 0.81}, (0.6, 0.9)),
        ),
        "outputs": (Output("", rows, matrix),),
        "predicted": (mistakes_sample(),),
        "rates": (("phase", "lr"), ((ENDS, "0.1"),)),
        "proofs": (EVIL,),
        "origin": (("device", QUOTES),),
        "recipe": f"name: {ENDS}",
        "reproduce": Command(f"tlcompile train '{ENDS}'"),
        "following": (Command("tlcompile predict x", EVIL),),
        **more,
    }
    return RunData(**data)  # type: ignore[arg-type]


def point(index: int, freeze: str, value: float | None, **overrides: str) -> SweepPoint:
    return SweepPoint(
        overrides={"freeze.upto": freeze, **overrides},
        state="finished" if value is not None else "failed",
        freeze=freeze,
        value=value,
        interval=None if value is None else (max(0, value - 0.05), min(1, value + 0.05)),
        count=100,
        best_epoch=3,
        lr=0.1,
        trainable=1000 * (index + 1),
        seconds=1.0 + index,
        folder=f"sweeps/x/{index}",
        error="" if value is not None else f"ran out: {ENDS}",
        command=f"tlcompile train sweeps/x/{index}/recipe.yaml",
        curve=(0.1, math.nan, value) if value is not None else (),
        train_curve=(0.2, 0.3, 0.4) if value is not None else (),
    )


def sweep_sample(
    freezes: tuple[str, ...] = ("layer1", EVIL), seeds: int = 2, rates: tuple[str, ...] = ("1e-3",)
) -> SweepData:
    """Return a sweep over freeze points, rates and seeds; its last point has failed."""
    chosen = list(product(freezes, rates, range(seeds)))
    points = tuple(
        point(i, freeze, None if i == len(chosen) - 1 else 0.5 + 0.4 * i / len(chosen),
              **({"fine_tune.optimizer.lr": rate} if len(rates) > 1 else {}),
              **({"fine_tune.seed": str(seed)} if seeds > 1 else {}))
        for i, (freeze, rate, seed) in enumerate(chosen)
    )  # fmt: skip
    return SweepData(
        name=ENDS,
        folder="sweeps/x",
        metric="val/accuracy",
        rising=True,
        points=points,
        freeze_points=freezes,
        notes=(EVIL,),
        origin=(("device", QUOTES),),
    )
