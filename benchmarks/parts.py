"""The parts of which every limit is made: an image's decode, forward and head step, and matrix rates.

All in seconds of CPU time for one image, by torch as it is: the baseline's own kernels.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tutorial
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets
from tutorial import Settings

SIDE = 2048  # of the square matrices whose product gives the rates
REPEATS = 3
MOST = 32  # images


@dataclass(frozen=True)
class Parts:
    """CPU seconds and FLOPs of one image; rates of this machine.

    Attributes:
        decode: Reading and transforming, by Pillow and torchvision's v1 transforms.
        forward: The frozen part, eval mode, eager fp32.
        train_forward: The same in train mode, in which the tutorial leaves it.
        flops: Of that.
        suffix_step: Forward, backward and optimizer step of what trains.
        suffix_flops: Of that.
        fp32_rate: FLOP a second of a large matrix product.
        bf16_rate: The same in bf16.
    """

    decode: float
    forward: float
    train_forward: float
    flops: int
    suffix_step: float
    suffix_flops: int
    fp32_rate: float
    bf16_rate: float

    def __str__(self) -> str:
        return (
            f"parts, CPU ms an image: decode {1e3 * self.decode:.3g}, frozen forward"
            f" {1e3 * self.forward:.3g} ({self.flops / 1e9:.2f} GFLOP), in train mode"
            f" {1e3 * self.train_forward:.3g}, training step of the rest"
            f" {1e3 * self.suffix_step:.3g}; matrix products {self.fp32_rate / 1e9:.0f} GFLOP/s in"
            f" fp32, {self.bf16_rate / 1e9:.0f} in bf16"
        )


def measure_parts(settings: Settings) -> Parts:
    """Measure each part alone, on images of the settings' folder."""
    model = tutorial.build(settings)
    cut = tutorial.end_of(model, settings.upto)
    units = [unit for _name, unit in tutorial.units(model)]
    frozen = nn.Sequential(*units[:cut]).eval()
    rest = nn.Sequential(*units[cut:-1], nn.Flatten(), units[-1])
    images = datasets.ImageFolder(settings.folder / "train", tutorial.transform(augment=False))
    count = min(len(images), MOST)
    decode = _cpu_seconds(lambda: [images[i] for i in range(count)]) / count
    batch = torch.stack([images[i % len(images)][0] for i in range(settings.batch)])
    labels = torch.arange(settings.batch) % len(images.classes)
    with torch.no_grad():
        forward = _cpu_seconds(lambda: frozen(batch)) / settings.batch
        with FlopCounterMode(display=False) as counter:
            rows = frozen(batch[:1])
        rows = frozen(batch)
        frozen.train()
        train_forward = _cpu_seconds(lambda: frozen(batch)) / settings.batch
    optimizer = torch.optim.SGD(rest.parameters(), lr=settings.rate, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(rest(rows), labels).backward()
        optimizer.step()

    with FlopCounterMode(display=False) as training:
        step()
    return Parts(
        decode,
        forward,
        train_forward,
        counter.get_total_flops(),
        _cpu_seconds(step, 10) / settings.batch,
        training.get_total_flops() // settings.batch,
        _matrix_rate(torch.float32),
        _matrix_rate(torch.bfloat16),
    )


def _matrix_rate(dtype: torch.dtype) -> float:
    left, right = (torch.randn(SIDE, SIDE, dtype=dtype) for _ in range(2))
    return 2 * SIDE**3 / _cpu_seconds(lambda: left @ right)


def _cpu_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Return the median CPU time, after one call unmeasured."""
    work()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found)
