"""Where features are kept: the break-even of reading against computing decides, and what fits."""

from __future__ import annotations

import pytest

from tlcompile.features.tiers import READING_FLOPS, choose_tier, free_memory

GIB = 2**30


@pytest.mark.parametrize(
    ("device", "gflops", "row_bytes", "gibibytes", "tier"),
    [
        ("cpu", 6.5, 401_408, 1, "memory"),  # ResNet-50 at layer3, fp32
        ("cpu", 6.5, 401_408, 100, "disk"),  # the same, larger than memory
        ("cpu", 0, 20_000_000, 1, "live"),  # 14 FLOP a byte: computed in less time than read
        ("mps", 6.5, 401_408, 1, "memory"),  # its memory is the machine's
        ("cuda", 6.5, 401_408, 1, "device"),
        ("cuda", 6.5, 401_408, 100, "memory"),  # 17 kFLOP a byte: PCIe pays, NVMe would not
        ("cuda", 6.5, 401_408, 1000, "live"),
        ("cuda", 1, 3_211_264, 100, "live"),  # the stem: 400 FLOP a byte, and PCIe wants 6,000
        ("cuda", 8, 8_192, 1000, "disk"),  # pooled: a million FLOP a byte
    ],
)
def test_the_tier_that_pays_and_fits(
    device: str, gflops: float, row_bytes: int, gibibytes: int, tier: str
) -> None:
    chosen = choose_tier(
        device,
        flops=int(gflops * 1e9),
        row_bytes=row_bytes,
        rows=gibibytes * GIB // row_bytes,
        free={"device": 80 * GIB, "memory": 500 * GIB if device == "cuda" else 20 * GIB},
    )
    assert chosen.name == tier
    assert chosen.intensity == (int(gflops * 1e9) + READING_FLOPS) / row_bytes
    assert f"{chosen.break_even:,.0f}" in chosen.worded()


def test_what_is_not_known_is_taken_to_fit() -> None:
    free = {"memory": 0}
    assert choose_tier("cpu", flops=10**9, row_bytes=10**6, rows=None, free=free).name == "memory"


def test_free_memory_is_some_of_it() -> None:
    assert 2**24 < free_memory() < 2**50
