"""E-mail through an SMTP server.

Dagster's `make_email_on_run_failure_sensor` waits for a server without a time-out, writes headers
by hand, always logs in, and moves on when the server is down; so it is not used.
"""

import contextlib
import logging
import smtplib
import ssl
from collections.abc import Generator
from email.message import EmailMessage
from email.utils import format_datetime

from ragassets.adapters.notifiers.notifier import TIMEOUT_SECONDS
from ragassets.core.notification_messages import Message, html_body, plain_text
from ragassets.core.notification_settings import EmailConfig
from ragassets.errors import NotificationError

_LOG = logging.getLogger(__name__)

PERMANENT = 500
"""Codes from here on say that another try changes nothing. Source: RFC 5321, section 4.2.1."""


class EmailNotifier:
    """Some people with an address."""

    def __init__(self, channel: str, config: EmailConfig) -> None:
        """Remember how; nothing is opened."""
        self._channel, self._config = channel, config
        self._where = f"{config.host}:{config.at_port}"

    def send(self, message: Message) -> None:
        """Send it to all recipients."""
        with self._session() as server:
            refused = server.send_message(self._written(message))
        if refused:
            # No error: the others would get it again and again.
            _LOG.warning(
                "notification channel %r: %s refused %s of %s recipients. Check `to`",
                self._channel,
                self._where,
                len(refused),
                len(self._config.to),
            )

    def probe(self) -> str:
        """Log in, and say that nothing is to be done."""
        with self._session() as server:
            server.noop()
        user = f" as {self._config.user}" if self._config.user else ""
        return f"{self._where} lets us in{user}; messages go to {', '.join(self._config.to)}"

    def _written(self, message: Message) -> EmailMessage:
        # Python's own class refuses line breaks in headers.
        mail = EmailMessage()
        mail["From"] = self._config.sender
        mail["To"] = ", ".join(self._config.to)
        mail["Subject"] = " ".join(message.subject.split())
        mail["Date"] = format_datetime(message.sent_at)
        mail["Message-ID"] = f"<{message.message_id}@ragassets.invalid>"
        # Source: RFC 3834, section 5: out-of-office replies to machines go nowhere.
        mail["Auto-Submitted"] = "auto-generated"
        # Not base64, in which spam comes and which no log shows.
        mail.set_content(plain_text(message), cte="quoted-printable")
        mail.add_alternative(html_body(message), subtype="html", cte="quoted-printable")
        return mail

    @contextlib.contextmanager
    def _session(self) -> Generator[smtplib.SMTP]:
        config = self._config
        try:
            server = self._connect()
            with contextlib.ExitStack() as stack:
                stack.callback(_leave, server)
                if config.security == "starttls":
                    server.starttls(context=ssl.create_default_context())
                if config.user is not None and config.password is not None:
                    server.login(config.user, config.password.get_secret_value())
                yield server
        except (OSError, smtplib.SMTPException) as error:
            problem, fix = _meaning(error)
            raise NotificationError(
                channel=self._channel, detail=f"{self._where} {problem}", fix=fix
            ) from None

    def _connect(self) -> smtplib.SMTP:
        config = self._config
        if config.security == "ssl":
            return smtplib.SMTP_SSL(
                config.host,
                config.at_port,
                timeout=TIMEOUT_SECONDS,
                context=ssl.create_default_context(),
            )
        return smtplib.SMTP(config.host, config.at_port, timeout=TIMEOUT_SECONDS)


def _meaning(error: OSError | smtplib.SMTPException) -> tuple[str, str]:
    """What is wrong, and what to do; never the server's own text, which may repeat a secret."""
    later = "It is tried again later"
    match error:
        case smtplib.SMTPNotSupportedError():
            return "offers no STARTTLS or no login", "Check `security`"
        case smtplib.SMTPAuthenticationError():
            return f"refused the login ({error.smtp_code})", "Check user and password"
        case smtplib.SMTPResponseException():
            is_final = error.smtp_code >= PERMANENT
            return f"answered {error.smtp_code}", "Check `sender` and `to`" if is_final else later
        case smtplib.SMTPRecipientsRefused():
            return "refused all recipients", "Check `to`"
        case ssl.SSLError():
            reason = error.reason or "no handshake"
            return f"has no TLS that this machine trusts ({reason})", "Check `security` and `port`"
        case _:
            return f"cannot be reached ({type(error).__name__})", later


def _leave(server: smtplib.SMTP) -> None:
    """Say goodbye; a server that does not answer it has the message nevertheless."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        server.quit()
    server.close()
