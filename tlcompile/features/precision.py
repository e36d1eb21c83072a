"""Choose how the frozen prefix computes: as the recipe says, or as fast as pays on this machine."""

from __future__ import annotations

import contextlib
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlcompile.durable.files import write_file
from tlcompile.errors.run import RunError
from tlcompile.features.folded import fold_norms
from tlcompile.features.hard import EXACT, FAST, FUSED, Prepared
from tlcompile.features.prefix import Rows
from tlcompile.graph.fold import Fold

PAYS = 1.2  # times as fast: less than that is not worth other bits
MEMORY = "precision.json"

BUDGET_SECONDS = 2.0  # all rounds together, so that a slow machine measures less often
ROUNDS = 7
IMAGES, SIDE, CHANNELS, LAYERS = 8, 28, 128, 4  # 1.9 GFLOP: a middle stage of a ResNet


def choose_precision(word: str, device: torch.device, memory: Path | None) -> str:
    """Resolve `auto`; every other word is its own answer.

    Measured once a machine: the next run reads the answer. Where nothing can be written, every run
    measures.

    Args:
        word: exact, fp32-fused, fast or auto.
        device: Where the prefix will compute.
        memory: The folder that remembers; None: nothing is remembered.

    Returns:
        exact, fp32-fused or fast.
    """
    if word != "auto":
        return word
    file = memory / MEMORY if memory is not None else None
    known = _remembered(file)
    machine = _machine(device)
    found = known.get(machine)
    if found in (EXACT, FUSED, FAST):
        return str(found)
    chosen = fastest_that_pays(measure(device))
    if file is not None:
        with contextlib.suppress(RunError):
            text = json.dumps({**known, machine: chosen}, indent=2, sort_keys=True)
            write_file(file, f"{text}\n".encode())
    return chosen


def fastest_that_pays(seconds: dict[str, float]) -> str:
    """Return the fastest precision that gains enough over every more exact one."""
    chosen, best = EXACT, seconds[EXACT]
    for name in (FUSED, FAST):
        if best / seconds[name] >= PAYS:
            chosen = name
        best = min(best, seconds[name])
    return chosen


def measure(device: torch.device) -> dict[str, float]:
    """Return the seconds that each precision takes for a small convolutional net, as medians."""
    with torch.random.fork_rng(devices=[]):  # the run's own draws stay as they are
        images = torch.randn(IMAGES, CHANNELS, SIDE, SIDE).to(device)
        runs = {EXACT: _exact_net(device)}
        runs |= {name: _hard_net(name, device) for name in (FUSED, FAST)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run(images)  # unmeasured: libraries choose their kernels
        start = time.perf_counter()
        for _ in range(ROUNDS):
            for name, run in runs.items():
                times[name].append(_seconds(run, images))
            if time.perf_counter() - start > BUDGET_SECONDS:
                break
    return {name: statistics.median(found) for name, found in times.items()}


def _net() -> nn.Sequential:
    blocks: list[nn.Module] = []
    for _ in range(LAYERS):
        conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        blocks += [conv, nn.BatchNorm2d(CHANNELS), nn.ReLU()]
    return nn.Sequential(*blocks).eval().requires_grad_(False)


def _exact_net(device: torch.device) -> Callable[[Tensor], Rows]:
    net = _net().to(device)
    return lambda images: (net(images),)


def _hard_net(precision: str, device: torch.device) -> Callable[[Tensor], Rows]:
    net = _net()
    fold_norms(net, [Fold(str(3 * n), str(3 * n + 1)) for n in range(LAYERS)])
    return Prepared(net, lambda root, images: (root(images),), precision, device)


def _seconds(run: Callable[[Tensor], Rows], images: Tensor) -> float:
    """Time one pass: CPU time where the CPU computes, which others on the machine disturb less."""
    if images.device.type == "cpu":
        start = time.process_time()
        run(images)
        return time.process_time() - start
    start = time.perf_counter()
    for tensor in run(images):
        tensor.cpu()  # waits for the device
    return time.perf_counter() - start


def _machine(device: torch.device) -> str:
    """Name what the answer depends on."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{_cpu()} {torch.backends.cpu.get_cpu_capability()}, {threads} threads"
    return f"{device.type}, {name}, torch {torch.__version__}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _remembered(file: Path | None) -> dict[str, Any]:
    """Read what earlier runs found; a file that cannot be read or is damaged knows nothing."""
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
