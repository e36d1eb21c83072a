"""Rows are stored a thousand times here: nobody waits for the disk."""

from __future__ import annotations

import pytest
from durable_disks import do_not_wait


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    do_not_wait(monkeypatch)
