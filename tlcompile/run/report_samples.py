"""What a finished run says of single validation images, for its page: predicted again, the worst shown."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tlcompile.bundle import Bundle, load_bundle
from tlcompile.data.samples import Samples, generator
from tlcompile.errors.base import Problems, TLCompileError
from tlcompile.recipe.finished import FinishedRun
from tlcompile.recipe.tasks import IGNORED
from tlcompile.report.page import percent
from tlcompile.report.pages import Predicted, Scatter, Tile
from tlcompile.run.answers import PRESENT
from tlcompile.run.evaluate import outputs_of
from tlcompile.run.objective import objective_of_bundle
from tlcompile.run.record import images_digest
from tlcompile.run.splits import open_splits
from tlcompile.training.goal import Goal

MOST = 24  # images that are shown
MASKS = 8  # of those with masks, which are three times as wide
POINTS = 1000  # in a chart of numbers
SIDE = 192  # pixels of their longer side; drawn at about 112, so sharp on a fine screen
PIXELS = 48  # side up to which an image is so small that it is enlarged without smoothing
# Okabe and Ito's colours, which the colour-blind tell apart; the most frequent class comes first.
PALETTE = ("#000000", "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
OTHERS, NOTHING = "#ffffff", "#999999"  # further classes; pixels that count for nothing


def predicted_again(run: FinishedRun, workers: int) -> tuple[tuple[Predicted, ...], str]:
    """Predict a run's validation images by its saved weights.

    Returns:
        What each output says of them, and why that is not shown.
    """
    try:
        bundle = load_bundle(run.folder)
        channels = bundle.preprocessing.channels
        samples = open_splits(run.recipe, channels, lambda _line: None, run.classes).val
        if samples is None:
            return (), ""
        if images_digest(samples) != run.record["images_sha256"].get("val"):
            return (), "Not shown: the validation images are no longer the run's own."
        return tuple(_predicted(bundle, samples, workers)), ""
    except TLCompileError as error:
        return (), f"Not shown: {headline(error)}."


def headline(error: TLCompileError) -> str:
    """Return what is wrong in one line."""
    first = error.errors[0] if isinstance(error, Problems) else error
    return first.headline()


def _predicted(bundle: Bundle, samples: Samples, workers: int) -> list[Predicted]:
    batches = outputs_of(bundle, samples, workers=workers)
    device = next(bundle.model.parameters()).device
    goals = objective_of_bundle(bundle, device).goals
    found = {name: Worst(goal) for name, goal in goals.items()}
    for outputs, targets in batches:
        for name, worst in found.items():
            worst.add(*((outputs[name], targets[name]) if name else (outputs, targets)))
    return [_section(name, worst, bundle, samples) for name, worst in found.items()]


class Worst:
    """The samples that one output is most wrong about; of a regression all numbers, too.

    Attributes:
        goal: Of the output.
        count: Samples so far.
        total: Those of them that are wrong.
        kept: (how wrong, sample, what it means, target) of the worst.
        numbers: (true, predicted) of a regression, a pair a batch.
    """

    def __init__(self, goal: Goal) -> None:
        self.goal, self.count, self.total = goal, 0, 0
        self.most = MASKS if goal.task == "segmentation" else MOST
        self.kept: list[tuple[float, int, Tensor, Tensor]] = []
        self.numbers: list[tuple[Tensor, Tensor]] = []

    def add(self, outputs: Any, targets: Tensor) -> None:
        """Look at a batch."""
        meaning = self.goal.meaning(outputs).cpu()
        targets = targets.cpu()
        if self.goal.task == "regression":
            targets = targets.reshape(len(targets), -1)
            self.numbers.append((targets, meaning))
        wrong = how_wrong(self.goal, meaning, targets)
        for place in wrong.argsort(descending=True, stable=True)[: self.most].tolist():
            if wrong[place] > 0:
                one = float(wrong[place]), self.count + place, meaning[place], targets[place]
                self.kept.append(one)
        self.kept.sort(key=lambda one: -one[0])
        del self.kept[self.most :]
        self.count += len(targets)
        self.total += int((wrong > 0).sum())


def how_wrong(goal: Goal, meaning: Tensor, targets: Tensor) -> Tensor:
    """Return how wrong an output is about each sample; 0: it is right.

    Returns:
        How sure it is of what is wrong; of numbers the largest error in standard deviations; of
        masks the share of the pixels that are wrong.

    Shape:
        in: as `Goal.meaning`, and targets of a batch   out: (N,)
    """
    match goal.task:
        case "regression":
            std = goal.scale.std.cpu() if goal.scale is not None else torch.ones(1)
            return ((meaning - targets).abs() / std).amax(1)
        case "multilabel":
            off = (meaning - targets.float()).abs()
            return torch.where(off > PRESENT, off, 0).amax(1)
        case "segmentation":
            counts = targets != IGNORED
            off = (meaning != targets) & counts
            return off.sum((1, 2)) / counts.sum((1, 2)).clamp(min=1)
    sure, taken = meaning.max(1)
    return torch.where(taken != targets, sure, 0)


def _section(output: str, worst: Worst, bundle: Bundle, samples: Samples) -> Predicted:
    task, behind = worst.goal.task, f": {output}" if output else ""
    if task == "segmentation":
        return _masks(worst, bundle, samples)
    lead = _lead(worst)
    tiles = tuple(_tile(worst.goal, kept, samples) for kept in worst.kept)
    if task == "regression":
        return Predicted(f"Numbers{behind}", lead, tiles, _scatters(worst))
    return Predicted(f"Mistakes{behind}", lead, tiles)


def _lead(worst: Worst) -> str:
    count, total, shown = f"{worst.count:,}", f"{worst.total:,}", len(worst.kept)
    if worst.goal.task == "regression":
        several = ", in the number that is furthest off" if worst.goal.width > 1 else ""
        return f"The {shown} of {count} validation images that are predicted worst{several}."
    if not worst.total:
        return f"None of {count} validation images is taken for something else."
    which = "all of them" if shown == worst.total else f"the {shown} that the model is surest of"
    what = (
        "have a wrong label" if worst.goal.task == "multilabel" else "are taken for another class"
    )
    if worst.total == 1:
        what = what.replace("have", "has").replace("are", "is")
        return f"1 of {count} validation images {what}."
    return f"{total} of {count} validation images {what}; {which}."


def _tile(goal: Goal, kept: tuple[float, int, Tensor, Tensor], samples: Samples) -> Tile:
    _, index, meaning, target = kept
    uri, small = picture(samples.read(index))
    said, sure, true = _words(goal, meaning, target)
    return Tile((uri,), Path(samples.ids[index]).name, said, true, sure, small)


def _words(goal: Goal, meaning: Tensor, target: Tensor) -> tuple[str, str, str]:
    """Return what is said of a sample, how sure that is, and what is right."""
    names = goal.classes
    if goal.task == "regression":
        std = goal.scale.std.cpu() if goal.scale is not None else torch.ones(1)
        worst = ((meaning - target).abs() / std).argsort(descending=True)[:2].tolist()
        alone = len(names) == 1
        said, true = (
            ", ".join(f"{values[i]:.4g}" if alone else f"{names[i]} {values[i]:.4g}" for i in worst)
            for values in (meaning.tolist(), target.tolist())
        )
        return said, "", true
    if goal.task == "multilabel":
        chances = meaning.tolist()
        told = [f"{n} {percent(p, 0)}" for n, p in zip(names, chances, strict=True) if p > PRESENT]
        there = [
            n if p > PRESENT else f"{n} ({percent(p, 0)})"
            for n, p, is_there in zip(names, chances, target.tolist(), strict=True)
            if is_there
        ]
        return ", ".join(told) or "no label", "", ", ".join(there) or "without any"
    taken = int(meaning.argmax())
    return names[taken], percent(float(meaning[taken]), 0), names[int(target)]


def _scatters(worst: Worst) -> tuple[Scatter, ...]:
    true, predicted = (torch.cat(parts) for parts in zip(*worst.numbers, strict=True))
    some = torch.randperm(len(true), generator=generator("scatter"))[:POINTS].sort().values
    errors = (predicted - true).abs().double().mean(0)
    return tuple(
        Scatter(
            name,
            tuple(zip(true[some, i].tolist(), predicted[some, i].tolist(), strict=True)),
            len(true),
            float(errors[i]),
        )
        for i, name in enumerate(worst.goal.classes)
    )


# Masks


def _masks(worst: Worst, bundle: Bundle, samples: Samples) -> Predicted:
    names = worst.goal.classes
    frequent = _frequent([one for kept in worst.kept for one in kept[2:]])
    colours = dict(zip(frequent, PALETTE, strict=False))
    table = [colours.get(value, OTHERS) for value in range(IGNORED)] + [NOTHING]
    legend = [(names[value], colour) for value, colour in colours.items()]
    legend += [("further classes", OTHERS)] if len(frequent) > len(PALETTE) else []
    legend += [("counts for nothing", NOTHING)] if _ignores(worst) else []
    tiles = []
    for share, index, mask, target in worst.kept:
        pixels, small = picture(bundle.preprocessing.pixels(samples.read(index)))
        maps = (coloured(target, table), coloured(mask, table))
        said = f"{percent(share)} of the pixels wrong"
        file = Path(samples.ids[index]).name
        tiles.append(Tile((pixels, *maps), file, "", f"{said}: {_most_taken(names, mask, target)}",
                          pixelated=small))  # fmt: skip
    lead = (
        f"The {len(tiles)} of {worst.count:,} validation images with the largest share of wrong "
        "pixels: as the model sees it, its mask, and the mask that is predicted."
        if tiles
        else f"Every pixel of {worst.count:,} validation images is right."
    )
    return Predicted("Masks", lead, tuple(tiles), colours=tuple(legend))


def _frequent(maps: Sequence[Tensor]) -> list[int]:
    """Return the classes that occur, the most frequent first."""
    counts: Counter[int] = Counter()
    for one in maps:
        found = torch.bincount(one.flatten().long()).tolist()
        counts.update({value: times for value, times in enumerate(found) if times})
    counts.pop(IGNORED, None)
    return [value for value, _ in counts.most_common()]


def _ignores(worst: Worst) -> bool:
    return any(bool((target == IGNORED).any()) for *_, target in worst.kept)


def _most_taken(names: Sequence[str], mask: Tensor, target: Tensor) -> str:
    """Word which class is taken for which most often."""
    off = (mask != target) & (target != IGNORED)
    pairs = Counter(zip(target[off].tolist(), mask[off].tolist(), strict=True))
    (true, taken), _ = pairs.most_common(1)[0]
    return f"mostly {names[true]} taken for {names[taken]}"


# Images


def coloured(mask: Tensor, table: Sequence[str]) -> str:
    """Return a map of classes as a small data URI.

    Args:
        mask: (H, W) values up to 255.
        table: The colour of each.
    """
    image = Image.fromarray(mask.to(torch.uint8).contiguous().numpy())
    image.putpalette(bytes.fromhex("".join(colour[1:] for colour in table)))
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    return _uri(image, "PNG")


def picture(pixels: Tensor) -> tuple[str, bool]:
    """Return an image as a small data URI, and whether it is to be enlarged pixel by pixel.

    Shape:
        in: (C, H, W) uint8
    """
    grey = pixels.shape[0] == 1
    array = (pixels[0] if grey else pixels.permute(1, 2, 0)).contiguous().numpy()
    image = Image.fromarray(array)
    if max(image.size) <= PIXELS:
        return _uri(image, "PNG"), True
    image.thumbnail((SIDE, SIDE))
    return _uri(image, "JPEG", quality=82), False


def _uri(image: Image.Image, form: str, **how: Any) -> str:
    data = io.BytesIO()
    image.save(data, format=form, **how)
    return f"data:image/{form.lower()};base64,{base64.b64encode(data.getvalue()).decode()}"
