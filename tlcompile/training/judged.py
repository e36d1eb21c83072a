"""What a split says of a model: its score, each class alone, and which is taken for which."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tlcompile.features.sources import Source
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.loop import scored
from tlcompile.training.metrics import Score
from tlcompile.training.objective import Objective, Scoring
from tlcompile.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class ClassScore:
    """One class, or label, among the others. A share of nothing is nan.

    Attributes:
        name: Its own.
        count: Samples, or pixels, that are of it.
        right: Those of them that were taken for it.
        taken: All that were taken for it.
    """

    name: str
    count: int
    right: int
    taken: int

    @property
    def recall(self) -> float:
        """The share of its own that was found."""
        return _share(self.right, self.count)

    @property
    def precision(self) -> float:
        """The share of what was taken for it that is its own."""
        return _share(self.right, self.taken)

    @property
    def f1(self) -> float:
        """The harmonic mean of recall and precision."""
        return _share(2 * self.right, self.count + self.taken)

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data; null where there is nothing to share."""
        shares = {"recall": self.recall, "precision": self.precision, "f1": self.f1}
        known = {key: None if math.isnan(value) else value for key, value in shares.items()}
        return {"n": self.count, "correct": self.right, **known}


@dataclass(frozen=True)
class Judged:
    """A score with what stands behind it.

    Attributes:
        score: Of all samples.
        classes: The score of each class, by output; the only output is called "".
        confusion: (C, C) how often each class (row) was taken for each (column), by output; none
            where several classes, or a number, are right at once.
    """

    score: Score
    classes: Mapping[str, tuple[ClassScore, ...]]
    confusion: Mapping[str, Tensor]

    def as_data(self) -> dict[str, Any]:
        """Return it as plain data: the score, and under `classes` each class; by output if several."""
        data = self.score.as_data()
        for name, classes in self.classes.items():
            place = data["outputs"][name] if name else data
            place["classes"] = {one.name: one.as_data() for one in classes}
        return data


def judge(
    model: CompiledModel,
    source: Source,
    *,
    objective: Objective,
    batch_size: int,
    ranks: Ranks = ALONE,
) -> Judged:
    """Judge a model by a split, in eval mode."""
    scoring = scored(model, source, objective=objective, batch_size=batch_size, ranks=ranks)
    return judged_of(scoring, objective, scoring.score())


def judged_of(scoring: Scoring, objective: Objective, score: Score) -> Judged:
    """Read the sums of every metric; one rank may, who has the score that all have made."""
    classes = {
        name: tuple(
            ClassScore(word, *counts)
            for word, counts in zip(objective.goals[name].classes, hits.T.tolist(), strict=True)
        )
        for name, hits in scoring.hits().items()
    }
    return Judged(score, classes, scoring.confusion())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
