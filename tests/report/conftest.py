"""What tests ask of pages, answered by one browser a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from report.browser import QUESTIONS, answers


@pytest.fixture(scope="module")
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Any]:
    """Return by test: result, errors, and what was fetched."""
    asked = QUESTIONS[request.module.__name__]
    found = answers(tmp_path_factory.mktemp("browser"), list(asked.values()))
    return dict(zip(asked, found, strict=True))


@pytest.fixture
def found(told: Mapping[str, Any], request: pytest.FixtureRequest) -> Any:
    """Return what a test asked; nothing may have gone wrong on the way, nothing been fetched."""
    mine = told[request.node.originalname]
    assert mine["errors"] == []
    assert mine["fetched"] == []
    return mine["result"]
