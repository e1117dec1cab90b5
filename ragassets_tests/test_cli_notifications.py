"""The section `notifications` as people write it, `notifications test`, and what doctor says."""

from pathlib import Path

import pytest

from ragassets.config import load_config
from ragassets.errors import ConfigurationError
from ragassets.queries.doctor import _check_notifications
from ragassets_tests.embedding_server import Reply
from ragassets_tests.notification_servers import HttpReceiver, mail_server
from ragassets_tests.scenario import Project
from ragassets_tests.small_project import run

SECRET = "a-secret-path"
MAIL = {"host": "smtp.acme.example", "sender": "rag@acme.example", "to": ["ops@acme.example"]}


def written(tmp_path: Path, **channels: object) -> Project:
    project = Project(tmp_path / "project")
    project.configure(notifications={"channels": channels})
    return project


def test_the_section_reads_as_documented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`on` without quotes is `true` in YAML 1.1, and means `on` all the same."""
    monkeypatch.setenv("SLACK_WEBHOOK_URL", f"https://hooks.slack.com/services/{SECRET}")
    file = tmp_path / "ragassets.yaml"
    file.write_text(
        "notifications:\n"
        "  ui_url: https://dagster.acme.example/\n"
        "  channels:\n"
        "    ops:\n"
        "      slack: {webhook_url: '${SLACK_WEBHOOK_URL}'}\n"
        "      on: [run_failure, guard]\n"
        "      min_severity: error\n"
    )
    config = load_config(file)
    assert config.notifications is not None
    ops = config.notifications.channels["ops"]
    assert (ops.on, ops.kind, ops.resolved) == (("run_failure", "guard"), "slack", True)
    assert config.notifications.ui_url == "https://dagster.acme.example"
    assert SECRET not in repr(config)
    assert SECRET not in config.model_dump_json()


NONSENSE = {
    "both ways of slack": (
        {"slack": {"webhook_url": "${HOOK}", "bot_token": "${HOOK}", "channel": "#a"}},
        "give webhook_url, or bot_token and channel",
    ),
    "a bot without a channel": (
        {"slack": {"bot_token": "${HOOK}"}},
        "channel belongs to bot_token",
    ),
    "two places": (
        {"webhook": {"webhook_url": "${HOOK}"}, "email": MAIL},
        "exactly one of slack, email and webhook, not email and webhook",
    ),
    "no place": ({"min_severity": "error"}, "exactly one of slack, email and webhook"),
    "an unknown topic": (
        {"webhook": {"webhook_url": "${HOOK}"}, "on": ["everything"]},
        "Input should be 'run_failure'",
    ),
    "nothing to tell": (
        {"webhook": {"webhook_url": "${HOOK}"}, "on": []},
        "at least 1 item",
    ),
    "a password without a user": (
        {"email": {**MAIL, "password": "${HOOK}"}},
        "user and password belong together",
    ),
    "a password in clear text": (
        {"email": {**MAIL, "user": "a", "password": "${HOOK}", "security": "none"}},
        "would send the password in clear text; use starttls or ssl",
    ),
    "a smuggled header": (
        {"email": {**MAIL, "to": ["a@b.example\nBcc: c@d.example"]}},
        "String should match pattern",
    ),
    "no address": ({"webhook": {"webhook_url": "${WORD}"}}, "no address that begins with https://"),
    "a misspelt key": ({"slack": {"webhok_url": "${HOOK}"}}, "Did you mean 'webhook_url'"),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_with_the_way_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never with the secret that stands there."""
    monkeypatch.setenv("HOOK", f"https://hooks.slack.com/{SECRET}")
    monkeypatch.setenv("WORD", SECRET)
    channel, said = NONSENSE[name]
    project = written(tmp_path, ops=channel)
    with pytest.raises(ConfigurationError) as raised:
        project.config  # noqa: B018
    assert said in str(raised.value)
    assert "notifications.channels.ops" in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize("value", [f"https://hooks.slack.com/{SECRET}", f"${{HOOK:-{SECRET}}}"])
def test_a_secret_in_the_file_is_refused(tmp_path: Path, value: str) -> None:
    """It would be in the repository next; a default is one, too."""
    project = written(tmp_path, ops={"slack": {"webhook_url": value}})
    with pytest.raises(ConfigurationError) as raised:
        project.config  # noqa: B018
    assert str(raised.value) == (
        "notifications.channels.ops.slack.webhook_url is a secret and stands in the file. Write"
        " ${SLACK_WEBHOOK_URL}, and set that variable where the daemon runs"
    )


def test_a_test_message_goes_to_every_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpReceiver() as server, mail_server() as mailbox:
        monkeypatch.setenv("HOOK", f"{server.url}/{SECRET}")
        mail = {**MAIL, "host": "127.0.0.1", "port": mailbox.port, "security": "none"}
        project = written(
            tmp_path, mail={"email": mail}, pager={"webhook": {"webhook_url": "${HOOK}"}}
        )
        config = ("--config", str(project.config_file))
        result = run("notifications", "test", "--json", *config)
        assert result.exit_code == 0, result.stderr
        assert '"channel": "mail"' in result.stdout
        one = run("notifications", "test", "pager", *config)
        assert one.exit_code == 0
        assert one.stdout.splitlines()[1].split() == ["pager", "webhook", "yes", "-"]
    (mail_message,) = mailbox.mails
    assert mail_message["Subject"] == (
        "[ragassets] this is a test of the channel 'mail'; nothing is wrong"
    )
    assert len(server.posts) == 2


def test_a_channel_that_takes_no_test_message_ends_with_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpReceiver(usual=Reply(404)) as server:
        monkeypatch.setenv("HOOK", f"{server.url}/{SECRET}")
        project = written(tmp_path, pager={"webhook": {"webhook_url": "${HOOK}"}})
        result = run("notifications", "test", "--config", str(project.config_file))
    assert result.exit_code == 3
    assert "the webhook answered 404. Check webhook_url" in result.stdout
    assert SECRET not in result.output


def test_a_test_without_channels_is_wrong_use(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    result = run("notifications", "test", "--config", str(project.config_file))
    assert result.exit_code == 2
    assert "docs/notifications.md" in result.stderr
    project.configure(notifications={"channels": {"mail": {"email": MAIL}}})
    result = run("notifications", "test", "pager", "--config", str(project.config_file))
    assert result.exit_code == 2
    assert "notification channel: 'pager' is not defined. Known: mail" in result.stderr


def test_doctor_asks_every_channel_and_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HttpReceiver(usual=Reply(400, b"no_text")) as server, mail_server() as mailbox:
        monkeypatch.setenv("HOOK", f"{server.url}/{SECRET}")
        mail = {**MAIL, "host": "127.0.0.1", "security": "none"}
        project = written(
            tmp_path,
            gone={"email": {**mail, "port": 1}},
            mail={"email": {**mail, "port": mailbox.port}},
            ops={"slack": {"webhook_url": "${HOOK}"}},
            pager={"webhook": {"webhook_url": "${HOOK}"}},
        )
        checks = {check.name: check for check in _check_notifications(project.workspace)}
    assert [check.outcome for check in checks.values()] == ["fail", "ok", "ok", "ok"]
    assert checks["channel gone"].value == "127.0.0.1:1 cannot be reached (ConnectionRefusedError)"
    assert checks["channel ops"].value == "Slack knows the webhook"
    assert mailbox.mails == []
    assert [post.method for post in server.posts] == ["POST", "HEAD"]
