"""What a point of a sweep reads and computes, and the seconds that takes: formulas, no clock.

Of one image: d to read and decode it, P to run the frozen part, S the trainable part forward, T a
training step of it, w to write a row, r to read it; E epochs (spec: performance, section 9).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

DECODE_SECONDS = 3e-3  # read, decode and resize one JPEG of about 500 x 400 pixels
READ_BYTES = {"device": 1e12, "memory": 3.7e9, "disk": 1e9}  # a second, of gathering rows
WRITE_BYTES = 1e9  # a second: hashed twice, written once


@dataclass(frozen=True)
class Rates:
    """How fast a machine is.

    Attributes:
        flops: Of the frozen part, a second, by precision.
        decode: Seconds to read and decode an image.
    """

    flops: Mapping[str, float]
    decode: float = DECODE_SECONDS

    def seconds(self, flops: float, precision: str = "exact") -> float:
        """Return how long so many FLOPs take."""
        return flops / self.flops[precision]


@dataclass(frozen=True)
class Need:
    """What one phase of a point reads, where it has a frozen part; all of it, where it has none.

    Attributes:
        point: Its number in the sweep, from 0.
        phase: Which one it is, from 0.
        keys: Of the sets of rows that it reads, one a boundary tensor; empty: it has no boundary.
        vertices: Their vertices.
        one_pass: What must be equal for two needs to be computed in one pass: the base, the images
            and their views, precision, images a pass, device.
        rows: Which rows: the images with their views; equal text, equal rows.
        count: How many rows those are.
        row_bytes: Of all boundary tensors of one row.
        train: Images trained on in an epoch.
        judged: Images judged by in an epoch.
        epochs: At most so many.
        frozen_flops: Of the frozen part, one image.
        suffix_flops: Of the trainable part, forward.
        step_flops: Of the trainable part in a training step.
        precision: Of the frozen part.
        chunk_size: Images a pass of it.
        tier: Where its rows are read from: device, memory, disk, or live.
        why: Why it is live; else empty.
    """

    point: int
    phase: int
    keys: tuple[str, ...]
    vertices: tuple[str, ...]
    one_pass: str
    rows: str
    count: int
    row_bytes: int
    train: int
    judged: int
    epochs: int
    frozen_flops: int
    suffix_flops: int
    step_flops: int
    precision: str = "exact"
    chunk_size: int = 32
    tier: str = "memory"
    why: str = field(default="", compare=False)

    @property
    def num_bytes(self) -> int:
        """Return the bytes of its rows."""
        return self.count * self.row_bytes


def training_seconds(need: Need, rates: Rates) -> float:
    """Return E (T + S of what is judged): what every way to train has to compute."""
    flops = need.train * need.step_flops + need.judged * need.suffix_flops
    return need.epochs * rates.seconds(flops)


def naive_seconds(need: Need, rates: Rates) -> float:
    """Return E (d + P + T): every image decoded and computed anew in every epoch, in fp32."""
    an_image = rates.decode + rates.seconds(need.frozen_flops)
    return training_seconds(need, rates) + need.epochs * (need.train + need.judged) * an_image


def live_seconds(need: Need, rates: Rates) -> float:
    """Return what a point costs whose rows are not kept: as naive, in the precision it asks for."""
    an_image = rates.decode + rates.seconds(need.frozen_flops, need.precision)
    return training_seconds(need, rates) + need.epochs * (need.train + need.judged) * an_image


def reading_seconds(need: Need) -> float:
    """Return E r: its rows read in every epoch."""
    rows = need.epochs * (need.train + need.judged)
    return rows * need.row_bytes / READ_BYTES.get(need.tier, READ_BYTES["disk"])


def pass_seconds(count: int, flops: float, precision: str, rates: Rates) -> float:
    """Return d + P for each row of a pass."""
    return count * (rates.decode + rates.seconds(flops, precision))


def writing_seconds(num_bytes: int) -> float:
    """Return w for so many bytes."""
    return num_bytes / WRITE_BYTES


def gained_seconds(needs: Iterable[Need], rates: Rates) -> float:
    """Return what keeping the rows of one boundary saves the points that read them."""
    users = list(needs)
    live = sum(live_seconds(need, rates) for need in users)
    kept = sum(training_seconds(need, rates) + reading_seconds(need) for need in users)
    lists = {need.rows: need for need in users}.values()  # each is computed, and written, once
    once = sum(pass_seconds(n.count, n.frozen_flops, n.precision, rates) for n in lists)
    return live - kept - once - sum(writing_seconds(need.num_bytes) for need in lists)
