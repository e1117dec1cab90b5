"""Connections that end at allowed addresses only, whatever a name resolves to.

The name is resolved once, every address is looked at, and the connection goes to an address that
was looked at: a name that resolves to something else a moment later (DNS rebinding) gains nothing.
TLS still checks the certificate against the name.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any

from httpcore import (
    SOCKET_OPTION,
    ConnectError,
    NetworkBackend,
    NetworkStream,
    ReadTimeout,
    SyncBackend,
)

from ragassets.core.public_addresses import AllowedAddresses
from ragassets.errors import PrivateAddressError

Resolver = Callable[[str, int], list[str]]
"""From a host and port to addresses."""


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order of the system's preference, each once.

    Raises:
        OSError: It has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Deadline:
    """Until when the request of this thread has to be over.

    Time-outs alone never end a server that sends a byte every second.
    """

    def __init__(self) -> None:
        """Without one."""
        self._of_thread = threading.local()

    @contextmanager
    def within(self, seconds: float) -> Generator[None]:
        """Set it for what this thread does inside."""
        self._of_thread.until = time.monotonic() + seconds
        try:
            yield
        finally:
            self._of_thread.until = None

    def left(self, timeout: float | None) -> float | None:
        """A time-out, cut at the deadline.

        Raises:
            ReadTimeout: The time is over.
        """
        until: float | None = getattr(self._of_thread, "until", None)
        if until is None:
            return timeout
        left = until - time.monotonic()
        if left <= 0:
            msg = "it took too long altogether"
            raise ReadTimeout(msg)
        return left if timeout is None else min(timeout, left)


class GuardedBackend(NetworkBackend):
    """Connects to allowed addresses, and keeps to the deadline of each request."""

    def __init__(
        self,
        allowed: AllowedAddresses,
        deadline: Deadline,
        *,
        resolver: Resolver = resolve,
        connector: NetworkBackend | None = None,
    ) -> None:
        """Say what is allowed.

        Args:
            allowed: Addresses and hosts.
            deadline: Of whoever sends the request.
            resolver: Tests bring their own.
            connector: Opens a connection to an address; tests bring their own.
        """
        self._allowed, self._deadline = allowed, deadline
        self._resolver, self._connector = resolver, connector or SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> NetworkStream:
        """A connection to the first allowed address of the host that answers.

        Raises:
            PrivateAddressError: None of its addresses is allowed.
            ConnectError: It cannot be resolved, or does not answer.
        """
        failure = ConnectError(f"{host} has no address")
        for address in self._addresses(host, port):
            try:
                stream = self._connector.connect_tcp(
                    address, port, self._deadline.left(timeout), local_address, socket_options
                )
            except ConnectError as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            msg = f"{host} cannot be resolved"
            raise ConnectError(msg) from error
        # The zone of a link-local address (`fe80::1%eth0`) is none of its meaning.
        allowed = [
            text for text in found if self._allowed.allows(host, ip_address(text.partition("%")[0]))
        ]
        if found and not allowed:
            raise PrivateAddressError(host=host, addresses=found)
        return allowed


class _TimedStream(NetworkStream):
    """A connection whose time-outs end at the deadline."""

    def __init__(self, stream: NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout))
        return _TimedStream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
