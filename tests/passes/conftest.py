"""`pytest tests/passes --update-goldens` writes tests/goldens anew; read the difference."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write tests/goldens anew")


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    # Not registered where pytest starts above this folder.
    return bool(request.config.getoption("--update-goldens", default=False))
