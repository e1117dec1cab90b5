"""Servers on loopback that take notifications: HTTP for Slack and webhooks, SMTP for e-mail."""

import email
import email.policy
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from ragassets_tests.embedding_server import Reply


@dataclass(frozen=True)
class Post:
    """A request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """Its body."""
        return json.loads(self.body)


class HttpReceiver:
    """Remembers requests. `script` holds the next answers; then all are `usual`."""

    def __init__(self, *script: Reply, usual: Reply | None = None) -> None:
        """Prepare a server; it listens already."""
        self.script, self.usual = list(script), usual or Reply(body=b'{"ok": true}')
        self.posts: list[Post] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        """Serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def _take(self, post: Post) -> Reply:
        with self._lock:
            self.posts.append(post)
            return self.script.pop(0) if self.script else self.usual

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                reply = receiver._take(Post(self.command, self.path, dict(self.headers), body))
                time.sleep(reply.hangs_seconds)
                try:
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(reply.body)))
                    self.end_headers()
                    if self.command != "HEAD":
                        self.wfile.write(reply.body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client gave up waiting

            def do_HEAD(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        return Handler


class Mailbox:
    """What arrived by e-mail; addresses in `refused` are refused."""

    def __init__(self, refused: Sequence[str] = ()) -> None:
        """Begin empty."""
        self.mails: list[EmailMessage] = []
        self.refused = refused
        self.port = 0

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: SMTP, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        """Take or refuse a recipient."""
        if address in self.refused:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, session: Any, envelope: Any
    ) -> str:
        """Take a message."""
        parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.mails.append(parsed)
        return "250 OK"


def _authenticate(
    server: SMTP, session: Any, envelope: Any, mechanism: str, login: LoginPassword
) -> AuthResult:
    is_known = (login.login, login.password) == (b"ragassets", b"correct horse")
    return AuthResult(success=is_known, handled=False)


@contextmanager
def mail_server(
    *,
    refused: Sequence[str] = (),
    starttls: ssl.SSLContext | None = None,
    ssl_context: ssl.SSLContext | None = None,
    asks_login: bool = False,
) -> Generator[Mailbox]:
    """An SMTP server in this process; its user is `ragassets`, the password `correct horse`."""
    mailbox = Mailbox(refused)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=port,
        ssl_context=ssl_context,
        tls_context=starttls,
        require_starttls=starttls is not None,
        auth_required=asks_login and starttls is not None,
        # The library does not know that `ssl_context` is TLS, too.
        auth_require_tls=starttls is not None,
        authenticator=_authenticate if asks_login else None,
    )
    controller.start()
    mailbox.port = port
    try:
        yield mailbox
    finally:
        controller.stop()


@contextmanager
def silent_server() -> Generator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for 127.0.0.1, and the file that a client has to trust."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "loopback.pem", folder / "loopback.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public
