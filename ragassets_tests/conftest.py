"""What holds for every test: offline, seeded, and untouched by the caller's environment."""

import ipaddress
import os
import random
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# Set before anything imports the libraries that read them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples every time: a failure in CI can be repeated, and no run is luckier than another.
settings.register_profile(
    "offline",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
# For looking further by hand: HYPOTHESIS_PROFILE=thorough
settings.register_profile("thorough", parent=settings.get_profile("offline"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "offline"))

# Modules of shared assertions: without this a failure there would not show the values.
pytest.register_assert_rewrite(
    "ragassets_tests.core.stage_checks", "ragassets_tests.core.stage_world"
)

# The caller's projects must not leak into tests.
_FOREIGN_VARIABLES = ("DAGSTER_HOME", "RAGASSETS_CONFIG", "QDRANT_API_KEY")


class OutsideConnectionError(RuntimeError):
    """A test tried to leave this machine."""


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset what another project may have exported, and seed what is random."""
    for name in _FOREIGN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    random.seed(0)


@pytest.fixture(autouse=True, scope="session")
def loopback_only() -> Iterator[None]:
    """Refuse connections that leave this machine, so that no test passes by luck of the network."""
    patch = pytest.MonkeyPatch()
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not _is_loopback(address):
            raise OutsideConnectionError(f"a test tried to connect to {address!r}")
        connect(self, address)  # pyright: ignore[reportArgumentType]

    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()


def _is_loopback(address: object) -> bool:
    host = str(address[0]) if isinstance(address, tuple) else str(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
