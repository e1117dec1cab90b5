"""Where a connection ends, whatever names resolve to."""

import pytest
from httpcore import ConnectError, NetworkBackend, NetworkStream

from ragassets.adapters.sources.web.connections import Deadline, GuardedBackend
from ragassets.adapters.sources.web.http_reader import Answer, HttpReader
from ragassets.core.public_addresses import AllowedAddresses
from ragassets.core.web_settings import WebConfig
from ragassets.errors import PrivateAddressError, SourceUnavailableError
from ragassets_tests.web_server import running_site


class Network(NetworkBackend):
    """Remembers which addresses were connected to; some do not answer."""

    def __init__(self, *silent: str) -> None:
        """Begin without a connection."""
        self.connected: list[str] = []
        self.silent = silent

    def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> NetworkStream:
        self.connected.append(host)
        if host in self.silent:
            raise ConnectError
        return NetworkStream()


def connect(found: list[list[str]], *, allowed: tuple[str, ...] = (), silent: str = "") -> Network:
    """Connect to a name that resolves to these addresses, another list with every question."""
    network = Network(silent)
    backend = GuardedBackend(
        AllowedAddresses.parse(allowed),
        Deadline(),
        resolver=lambda host, port: found.pop(0),
        connector=network,
    )
    backend.connect_tcp("docs.example.com", 443)
    return network


def read(reader: HttpReader, url: str) -> Answer:
    """What is behind an address and all its redirects."""
    return reader.get(
        url,
        to_follow=lambda _: {},
        wants_body=lambda *_: True,
        max_bytes=1_000,
        total_seconds=5,
    )


def test_the_address_that_was_looked_at_is_the_one_that_is_connected_to() -> None:
    """DNS rebinding: the second answer is private; nobody asks a second time."""
    assert connect([["93.184.216.34"], ["127.0.0.1"]]).connected == ["93.184.216.34"]


def test_private_addresses_of_a_name_are_left_out() -> None:
    """A name may have several; only the public ones count, in their order."""
    found = [["10.0.0.1", "::1", "93.184.216.34", "2606:4700::1111"]]
    assert connect(found).connected == ["93.184.216.34"]
    found = [["93.184.216.34", "fe80::1%eth0", "2606:4700::1111"]]
    assert connect(found, silent="93.184.216.34").connected == ["93.184.216.34", "2606:4700::1111"]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "fe80::1%eth0"],
)
def test_a_name_with_private_addresses_alone_is_refused(address: str) -> None:
    """With the way out."""
    with pytest.raises(PrivateAddressError, match=r"'docs\.example\.com' to web\.allow_private"):
        connect([[address]])


def test_a_name_that_nobody_knows_cannot_be_reached() -> None:
    """That is an outage, no reason to delete."""

    def unknown(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    backend = GuardedBackend(AllowedAddresses(), Deadline(), resolver=unknown, connector=Network())
    with pytest.raises(ConnectError, match="cannot be resolved"):
        backend.connect_tcp("docs.example.com", 443)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "localhost.",
     "LOCALHOST", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0"],
)  # fmt: skip
def test_no_notation_of_loopback_gets_past(host: str) -> None:
    """Decimal, octal, hexadecimal, short and mapped: the system's resolver reads all of them."""
    with running_site() as site:
        site.page("/", "secret")
        port = site.url.rpartition(":")[2]
        url = f"http://{host.lower()}:{port}/"
        with (
            HttpReader(WebConfig(), "http://docs.example.com", read_seconds=2) as reader,
            pytest.raises(SourceUnavailableError),
        ):
            read(reader, url)
        assert site.requests == []


def test_a_redirect_is_looked_at_like_any_address() -> None:
    """The first answer came from an allowed host; what it names is not."""
    with running_site("127.0.0.2") as inside, running_site() as site:
        inside.page("/", "secret")
        port = inside.url.rpartition(":")[2]
        site.redirect("/", f"http://2130706434:{port}/")
        web = WebConfig(allow_private=("127.0.0.1",))
        with (
            HttpReader(web, site.url, read_seconds=2) as reader,
            pytest.raises(PrivateAddressError, match=r"127\.0\.0\.2, which is not public"),
        ):
            read(reader, f"{site.url}/")
        assert inside.requests == []
