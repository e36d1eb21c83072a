"""What the pages of runs and sweeps show, as plain data. run/ fills it; nothing here reads a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Table = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]  # columns, rows


@dataclass(frozen=True)
class Epoch:
    """One row of metrics.csv.

    Attributes:
        number: Counts from 1.
        phase: Its phase.
        values: By column: `train/loss`, `val/accuracy`; what was not measured is absent.
    """

    number: int
    phase: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class SplitScore:
    """The score of one split.

    Attributes:
        split: train, val or test.
        count: Samples.
        values: Loss and metrics by name; accuracies from 0 to 1.
        interval: 95 % interval of the accuracy.
    """

    split: str
    count: int
    values: Mapping[str, float]
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ClassRow:
    """One class among the others; None where there is nothing to share."""

    name: str
    count: int
    correct: int
    recall: float | None
    precision: float | None
    f1: float | None


@dataclass(frozen=True)
class Output:
    """The classes of one output.

    Attributes:
        name: Of the output; empty where it is the only one.
        classes: Each alone.
        confusion: How often each class (row) was taken for each (column); empty where unknown.
        task: Of recipe.tasks.TASKS; of a segmentation pixels are counted.
    """

    name: str
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...] = ()
    task: str = "classification"


@dataclass(frozen=True)
class Tile:
    """A validation image, and what is said of it.

    Attributes:
        images: As data URIs; behind the image its mask and the predicted one, where it has masks.
        name: Its file.
        said: What the model says.
        true: What is right.
        sure: How sure the model is, or how wrong; in words.
        pixelated: Whether it is so small that its pixels are shown.
    """

    images: tuple[str, ...]
    name: str
    said: str
    true: str
    sure: str = ""
    pixelated: bool = False


@dataclass(frozen=True)
class Scatter:
    """One number as it is, and as it is predicted.

    Attributes:
        name: Its own.
        points: (true, predicted) in its own units.
        count: Images, of which `points` are a part.
        error: The mean absolute one of all.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    count: int
    error: float


@dataclass(frozen=True)
class Predicted:
    """What one output says of single validation images.

    Attributes:
        title: Of the section.
        lead: How many are wrong, and which are shown.
        tiles: The worst first.
        scatters: Of a regression, one a number.
        colours: Of masks: each class with its colour, as `#rrggbb`.
    """

    title: str
    lead: str
    tiles: tuple[Tile, ...] = ()
    scatters: tuple[Scatter, ...] = ()
    colours: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Command:
    """A command to type, and why one would."""

    text: str
    why: str = ""


@dataclass(frozen=True)
class RunData:
    """All that the page of a run shows.

    Attributes:
        name: The recipe's.
        folder: The run's.
        headline: The score with n and its interval, in words.
        facts: What was trained, as (word, value).
        epochs: In their order.
        monitor: The column that the best epoch is chosen by.
        best: Number of the best epoch.
        reading: What the curves say: verdict, evidence, advice; None: not read.
        scores: Of the best epoch's weights.
        outputs: Classes of each output.
        predicted: What each output says of single validation images.
        predicted_note: Why that is not shown; else empty.
        figures: Drawings of the compiled model, as HTML of `graph_figure`, one a phase.
        graph_note: Why there is none; else empty.
        rates: What trains at which rate.
        proofs: Of the freeze, one a phase.
        origin: Versions, digests, device, as (word, value).
        recipe: Text of the resolved recipe.
        reproduce: Trains it again.
        following: What one types next.
    """

    name: str
    folder: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    epochs: tuple[Epoch, ...]
    monitor: str
    best: int
    reading: tuple[str, str, str] | None = None
    scores: tuple[SplitScore, ...] = ()
    outputs: tuple[Output, ...] = ()
    predicted: tuple[Predicted, ...] = ()
    predicted_note: str = ""
    figures: tuple[str, ...] = ()
    graph_note: str = ""
    rates: Table = ((), ())
    proofs: tuple[str, ...] = ()
    origin: tuple[tuple[str, str], ...] = ()
    recipe: str = ""
    reproduce: Command = Command("")
    following: tuple[Command, ...] = ()


@dataclass(frozen=True)
class SweepPoint:
    """One point of a sweep.

    Attributes:
        overrides: What the sweep chose, by key.
        state: finished, failed, ...
        freeze: The freeze point, as in the recipe.
        value: The metric at its best epoch; accuracies from 0 to 1.
        interval: 95 % interval of an accuracy.
        count: Samples that it was measured on.
        best_epoch: Counts from 1.
        lr: Learning rate at the start.
        trainable: Parameters that learn.
        frozen_flops: Of the frozen part for one image; None: not known.
        seconds: Wall time.
        folder: The run's.
        error: First line of what went wrong.
        command: Trains it again, alone.
        curve: The metric of each epoch; nan where it was not measured.
        train_curve: The same of training; empty where that was never measured.
    """

    overrides: Mapping[str, str]
    state: str
    freeze: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    count: int | None = None
    best_epoch: int | None = None
    lr: float | None = None
    trainable: int | None = None
    frozen_flops: int | None = None
    seconds: float | None = None
    folder: str = ""
    error: str = ""
    command: str = ""
    curve: tuple[float, ...] = ()
    train_curve: tuple[float, ...] = ()

    @property
    def label(self) -> str:
        """Its overrides in one line."""
        return " ".join(f"{key}={value}" for key, value in self.overrides.items())


@dataclass(frozen=True)
class Advice:
    """How good a ranking of the freeze points without training was.

    Attributes:
        sentence: In words: the rank correlation, and what it means.
        table: The scores beside what was measured.
    """

    sentence: str
    table: Table


@dataclass(frozen=True)
class SweepData:
    """All that the page of a sweep shows.

    Attributes:
        name: The recipe's.
        folder: The sweep's.
        metric: Of every point: `val/accuracy`.
        rising: Whether a higher value is better.
        points: In the order of the manifest.
        freeze_points: Names of those that occur, from the input to the output.
        notes: Sentences: what the charts do not show, and why.
        origin: Versions, device, as (word, value).
        command: As it was typed; it runs what is missing or failed.
        advice: Where the freeze points were ranked.
    """

    name: str
    folder: str
    metric: str
    rising: bool
    points: tuple[SweepPoint, ...]
    freeze_points: tuple[str, ...]
    notes: tuple[str, ...] = ()
    origin: tuple[tuple[str, str], ...] = ()
    command: str = ""
    advice: Advice | None = None
