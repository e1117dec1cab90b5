"""Every channel against a real server on loopback, sound and broken."""

import hashlib
import hmac
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ragassets.adapters.notifiers import email as email_module
from ragassets.adapters.notifiers import slack, webhook
from ragassets.adapters.notifiers.notifier import send_all
from ragassets.adapters.notifiers.registry import open_notifier
from ragassets.core.notification_messages import Message, compose
from ragassets.core.notification_settings import ChannelConfig
from ragassets.core.problems import Notice, Problem
from ragassets.errors import NotificationError
from ragassets_tests.embedding_server import Reply
from ragassets_tests.notification_servers import (
    HttpReceiver,
    certificate,
    mail_server,
    silent_server,
)

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
TOKEN = "xoxb-a-token-that-nobody-may-see"


def message() -> Message:
    """About a run that failed, with letters that each form has to escape."""
    problem = Problem(
        key="run_failure/process_documents",
        topic="run_failure",
        severity="error",
        title="process_documents failed for 2 partitions: <storage> & more",
        details=("partitions handbook-000, handbook-001",),
        commands=("ragassets status",),
        path="runs/1234",
    )
    notice = Notice(problem=problem, kind="new", at=NOW, since=NOW)
    return compose(
        [notice], {}, project="acme", ui_url="https://dagster.acme", severity="error", now=NOW
    )


def by_webhook(url: str, **more: object) -> ChannelConfig:
    return ChannelConfig(webhook={"webhook_url": url, **more})


def by_slack(url: str) -> ChannelConfig:
    return ChannelConfig(slack={"webhook_url": f"{url}/services/T0/B0/a-secret-path"})


def by_bot(url: str) -> ChannelConfig:
    return ChannelConfig(slack={"bot_token": TOKEN, "channel": "#ops", "api_url": f"{url}/api/"})


def by_mail(port: int, **more: object) -> ChannelConfig:
    common = {"sender": "rag@acme.example", "to": ["ops@acme.example", "lead@acme.example"]}
    return ChannelConfig(
        email={"host": "127.0.0.1", "port": port, "security": "none", **common, **more}
    )


def test_slack_gets_text_and_blocks_through_its_webhook() -> None:
    with HttpReceiver(usual=Reply(body=b"ok")) as slack_server:
        open_notifier("ops", by_slack(slack_server.url)).send(message())
    (post,) = slack_server.posts
    assert post.path == "/services/T0/B0/a-secret-path"
    assert post.json["text"].startswith("[acme] process_documents failed for 2 partitions")
    (section,) = post.json["blocks"]
    assert section["text"]["text"] == (
        ":red_circle: *[acme] process_documents failed for 2 partitions: &lt;storage&gt; &amp;"
        " more*\n"
        "partitions handbook-000, handbook-001\n"
        "`ragassets status`\n"
        "<https://dagster.acme/runs/1234|Open in Dagster>"
    )


def test_a_bot_posts_to_its_channel() -> None:
    with HttpReceiver() as slack_server:
        open_notifier("ops", by_bot(slack_server.url)).send(message())
    (post,) = slack_server.posts
    assert post.path == "/api/chat.postMessage"
    assert post.headers["Authorization"] == f"Bearer {TOKEN}"
    assert post.json["channel"] == "#ops"
    assert len(post.json["blocks"]) == 1


def test_a_bot_that_slack_refuses_says_why_without_its_token() -> None:
    """Slack says 200 to everything and means it only where `ok` is true."""
    refusal = Reply(body=b'{"ok": false, "error": "not_in_channel"}')
    with HttpReceiver(usual=refusal) as slack_server, pytest.raises(NotificationError) as raised:
        open_notifier("ops", by_bot(slack_server.url)).send(message())
    assert "Slack answered 200 (not_in_channel)" in str(raised.value)
    assert TOKEN not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("make", [by_slack, by_bot], ids=["webhook", "bot"])
def test_a_throttling_slack_says_how_long_to_wait(make: object) -> None:
    throttled = Reply(429, b'{"ok": false, "error": "ratelimited"}', {"Retry-After": "90"})
    with HttpReceiver(usual=throttled) as slack_server, pytest.raises(NotificationError) as raised:
        open_notifier("ops", make(slack_server.url)).send(message())
    assert raised.value.retry_after_seconds == 90
    assert len(slack_server.posts) == 1


@pytest.mark.parametrize("make", [by_slack, by_bot], ids=["webhook", "bot"])
def test_a_broken_slack_is_an_error_of_ours(make: object) -> None:
    with HttpReceiver(usual=Reply(500, b"<html>")) as slack_server:
        with pytest.raises(NotificationError) as raised:
            open_notifier("ops", make(slack_server.url)).send(message())
        assert "secret" not in str(raised.value)
        address = slack_server.url
    with pytest.raises(NotificationError, match="cannot be reached") as raised:
        open_notifier("ops", make(address)).send(message())
    assert "127.0.0.1" not in str(raised.value)


def test_doctor_asks_slack_without_posting() -> None:
    known = Reply(400, b"no_text")
    with HttpReceiver(known, Reply(404, b"no_service")) as slack_server:
        channel = open_notifier("ops", by_slack(slack_server.url))
        assert channel.probe() == "Slack knows the webhook"
        with pytest.raises(NotificationError, match=r"404 \(no_service\)"):
            channel.probe()
        assert open_notifier("ops", by_bot(slack_server.url)).probe().endswith("#ops")
    assert [post.body for post in slack_server.posts[:2]] == [b'{"text": ""}', b'{"text": ""}']
    assert slack_server.posts[2].path == "/api/auth.test"


def test_mail_arrives_as_text_and_html() -> None:
    with mail_server() as mailbox:
        open_notifier("mail", by_mail(mailbox.port)).send(message())
    (mail,) = mailbox.mails
    assert mail["From"] == "rag@acme.example"
    assert mail["To"] == "ops@acme.example, lead@acme.example"
    assert mail["Subject"] == ("[acme] process_documents failed for 2 partitions: <storage> & more")
    assert mail["Auto-Submitted"] == "auto-generated"
    text = mail.get_body(("plain",)).get_content().replace("\r\n", "\n")
    assert text == (
        "ERROR  process_documents failed for 2 partitions: <storage> & more\n"
        "  partitions handbook-000, handbook-001\n"
        "  $ ragassets status\n"
        "  https://dagster.acme/runs/1234\n"
    )
    shown = mail.get_body(("html",)).get_content()
    assert "&lt;storage&gt; &amp; more" in shown
    assert '<a href="https://dagster.acme/runs/1234">' in shown


@pytest.mark.parametrize("security", ["starttls", "ssl"])
def test_mail_goes_through_tls_with_a_login(
    security: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that the machine does not trust gets no password."""
    context, trusted = certificate(tmp_path)
    served = {"starttls": {"starttls": context}, "ssl": {"ssl_context": context}}[security]
    with mail_server(asks_login=True, **served) as mailbox:
        login = {"user": "ragassets", "password": "correct horse", "security": security}
        channel = open_notifier("mail", by_mail(mailbox.port, **login))
        with pytest.raises(NotificationError, match="no TLS that this machine trusts"):
            channel.send(message())
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        channel.send(message())
        assert "lets us in as ragassets" in channel.probe()
        wrong = by_mail(mailbox.port, **{**login, "password": "wrong secret"})
        with pytest.raises(NotificationError, match=r"refused the login \(535\)") as raised:
            open_notifier("mail", wrong).send(message())
    assert "wrong secret" not in str(raised.value)
    assert len(mailbox.mails) == 1


def test_mail_to_one_refused_address_reaches_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """As an error it would be sent to the others again and again."""
    with mail_server(refused=["lead@acme.example"]) as mailbox:
        open_notifier("mail", by_mail(mailbox.port)).send(message())
        assert len(mailbox.mails) == 1
        assert "refused 1 of 2 recipients" in caplog.text
        mailbox.refused = ["lead@acme.example", "ops@acme.example"]
        with pytest.raises(NotificationError, match="refused all recipients"):
            open_notifier("mail", by_mail(mailbox.port)).send(message())


def test_a_server_without_starttls_gets_no_mail() -> None:
    with mail_server() as mailbox, pytest.raises(NotificationError, match="offers no STARTTLS"):
        open_notifier("mail", by_mail(mailbox.port, security="starttls")).send(message())
    assert mailbox.mails == []


def test_a_webhook_gets_signed_json() -> None:
    with HttpReceiver() as server:
        channel = by_webhook(f"{server.url}/hooks/x", secret="shared")
        open_notifier("pager", channel).send(message())
    (post,) = server.posts
    fields = dict(part.split("=") for part in post.headers["X-Ragassets-Signature"].split(","))
    signed = f"{fields['t']}.".encode() + post.body
    assert fields["v1"] == hmac.new(b"shared", signed, hashlib.sha256).hexdigest()
    assert int(fields["t"]) == int(NOW.timestamp())
    assert post.headers["X-Ragassets-Id"] == post.json["id"]
    assert post.json["subject"].startswith("[acme] process_documents failed")
    assert post.json["notices"] == [
        {
            "key": "run_failure/process_documents",
            "topic": "run_failure",
            "severity": "error",
            "kind": "new",
            "title": "process_documents failed for 2 partitions: <storage> & more",
            "details": ["partitions handbook-000, handbook-001"],
            "commands": ["ragassets status"],
            "path": "runs/1234",
            "since": "2026-11-22T09:30:00+00:00",
            "at": "2026-11-22T09:30:00+00:00",
        }
    ]
    assert post.json["held_back"] == {}


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
def test_a_webhook_that_says_anything_but_2xx_did_not_take_it(status: int) -> None:
    answer = Reply(status, headers={"Location": "/elsewhere"})
    said = pytest.raises(NotificationError, match=f"answered {status}")
    with HttpReceiver(usual=answer) as server, said:
        open_notifier("pager", by_webhook(f"{server.url}/a-secret-path")).send(message())
    assert len(server.posts) == 1


def test_hanging_servers_hold_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that says nothing costs its channel a time-out, and the others nothing."""
    for module in (slack, webhook, email_module):
        monkeypatch.setattr(module, "TIMEOUT_SECONDS", 1.0)
    with silent_server() as port, HttpReceiver() as sound:
        silent = f"http://127.0.0.1:{port}"
        channels = {
            "mail": by_mail(port),
            "hook": by_webhook(silent),
            "slack": by_slack(silent),
            "bot": by_bot(silent),
            "sound": by_webhook(sound.url),
        }
        began = time.monotonic()
        outcomes = send_all(
            {name: (open_notifier(name, c), message()) for name, c in channels.items()}
        )
        took = time.monotonic() - began
    assert {name for name, outcome in outcomes.items() if outcome is None} == {"sound"}
    assert took < 10
    assert len(sound.posts) == 1


def test_a_channel_that_never_ends_is_left_at_the_deadline() -> None:
    """Whatever a socket's time-outs say: a server that dribbles resets them with every byte."""

    class Endless:
        def send(self, _: Message) -> None:
            time.sleep(3)

        def probe(self) -> str:
            raise NotImplementedError

    class Broken(Endless):
        def send(self, _: Message) -> None:
            raise ValueError("a text with the secret in it")

    outcomes = send_all(
        {"endless": (Endless(), message()), "broken": (Broken(), message())}, seconds=0.2
    )
    assert "took longer than 0.2 s" in str(outcomes["endless"])
    assert "failed (ValueError)" in str(outcomes["broken"])
    assert "secret" not in str(outcomes["broken"])
