"""The same ground for every test: quiet threads, one seed, no network."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from typing import Any

import pytest

# Before torch is imported: spinning threads made tests 60 times slower on a shared machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write tests/goldens anew")


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-goldens"))


@pytest.fixture(scope="session", autouse=True)
def no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fixtures of a module run before those of a test."""
    os.environ["TLCOMPILE_CACHE"] = str(tmp_path_factory.getbasetemp() / "caches" / "modules")


@pytest.fixture(autouse=True)
def own_cache(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Give each test a cache of its own, never the user's; it is made when something is stored."""
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]
    root = tmp_path_factory.getbasetemp() / "caches" / name
    monkeypatch.setenv("TLCOMPILE_CACHE", str(root))


@pytest.fixture(autouse=True)
def one_seed() -> None:
    """Seed torch where a test module has imported it; other tests stay quick without."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but local sockets; a test marked `network` may connect."""
    if request.node.get_closest_marker("network"):
        return

    class Offline(socket.socket):
        def connect(self, address: Any, /) -> None:
            self._only_local(address)
            super().connect(address)

        def connect_ex(self, address: Any, /) -> int:
            self._only_local(address)
            return super().connect_ex(address)

        def _only_local(self, address: Any) -> None:
            if self.family != socket.AF_UNIX:
                pytest.fail(f"a test wants the network: {address}")

    monkeypatch.setattr(socket, "socket", Offline)
