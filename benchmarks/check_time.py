"""How long `tlcompile check` takes, against importing torch and torchvision and building the module.

    python benchmarks/check_time.py [--rounds 7]

Each round starts one process of each kind, in turn, so that a busy machine is busy for both. The
figures are medians; CPU time (user + system) is steadier than the clock where others compute too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = "resnet50"
LIMIT_CHECK, LIMIT_HELP = 1.15, 0.3  # bar P11: times the baseline; seconds
BASELINE = [
    "-c", f"import torch, torchvision; torchvision.models.{MODEL}(weights=None)",
]  # fmt: skip
RECIPE = f"base: {{model: {MODEL}}}\ndata: {{folder: nowhere}}\n"


def timed(arguments: list[str]) -> tuple[float, float]:
    """Run one Python process; return the seconds by the clock, and of CPU time."""
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        clock = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.stderr is not None
        if process.returncode:
            raise SystemExit(process.stderr.read().decode())
    return clock, usage.ru_utime + usage.ru_stime


def main() -> int:
    """Measure, print a table, and return 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(RECIPE)
        commands = {
            "baseline": BASELINE,
            "check": ["-m", "tlcompile", "check", str(recipe)],
            "help": ["-m", "tlcompile", "--help"],
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for arguments in commands.values():
            timed(arguments)  # once unmeasured: files are cached, bytecode is written
        for _ in range(rounds):
            for name, arguments in commands.items():
                times[name].append(timed(arguments))
    clock, cpu = (
        {name: statistics.median(t[which] for t in found) for name, found in times.items()}
        for which in (0, 1)
    )
    rows = [
        (f"check of {MODEL}, CPU s", cpu["baseline"], cpu["check"], LIMIT_CHECK),
        (f"check of {MODEL}, clock s", clock["baseline"], clock["check"], LIMIT_CHECK),
    ]
    print(f"{'P11':<26}{'baseline':>9}{'ours':>8}{'ratio':>8}{'limit':>8}")
    for title, base, ours, limit in rows:
        print(f"{title:<26}{base:>9.2f}{ours:>8.2f}{ours / base:>8.3f}{limit:>8.2f}")
    print(f"{'--help, CPU s':<26}{'':>9}{cpu['help']:>8.2f}{'':>8}{LIMIT_HELP:>8.2f}")
    print(f"{'--help, clock s':<26}{'':>9}{clock['help']:>8.2f}{'':>8}{LIMIT_HELP:>8.2f}")
    print(f"median of {rounds} rounds, one process of each kind in turn")
    return int(cpu["check"] > LIMIT_CHECK * cpu["baseline"] or cpu["help"] > LIMIT_HELP)


if __name__ == "__main__":
    sys.exit(main())
