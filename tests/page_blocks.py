"""Read the blocks of a page that its test runs as they stand there."""

from __future__ import annotations

import re


def block_of(page: str, mark: str) -> str:
    """Return the fenced block behind `<!-- mark -->`."""
    found = re.search(rf"<!-- {mark} -->\s*```\w*\n(.*?)```", page, re.DOTALL)
    assert found, f"there is no block {mark}"
    return found[1]
