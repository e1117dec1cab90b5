"""Every message, in one place: what it says, as plain text, as blocks of Slack, as HTML and JSON.

A message is made of sections, and the three forms show the same sections, so that no channel is
told less than another. Nothing here is text of a document; URIs, reasons and counts are.
"""

import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ragassets.core.notification_settings import Severity, Topic
from ragassets.core.problems import Notice, Problem

SHOWN_WHOLE = 10
"""Notices with all their lines. Slack takes 50 blocks, and nobody reads more."""

SHOWN_AT_ALL = 40

LINE_CHARS = 600

SLACK_TEXT_CHARS, SLACK_HEADER_CHARS = 3000, 150
"""Source: https://docs.slack.dev/reference/block-kit/blocks, sections and headers."""

TOPIC_NAMES: Mapping[Topic, str] = {
    "run_failure": "failed runs",
    "dead_letters": "dead letters",
    "failed_check": "failed checks",
    "guard": "stopped deletions",
    "stale_source": "sources",
    "embedding_service": "embedding services",
}

MARKS: Mapping[Severity, str] = {"error": "ERROR", "warning": "WARNING"}
SLACK_MARKS: Mapping[str, str] = {
    "ERROR": ":red_circle:",
    "WARNING": ":large_yellow_circle:",
    "ENDED": ":large_green_circle:",
}
COLOURS: Mapping[str, str] = {"ERROR": "#c0392b", "WARNING": "#b9770e", "ENDED": "#1e8449"}


@dataclass(frozen=True)
class Section:
    """One notice, ready to be shown."""

    mark: str
    """`ERROR`, `WARNING` or `ENDED`."""
    title: str
    lines: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    link: str = ""


@dataclass(frozen=True)
class Message:
    """What goes out."""

    message_id: str
    """The same for the same content: a receiver that gets it twice can tell."""
    subject: str
    severity: Severity
    sections: tuple[Section, ...]
    footer: tuple[str, ...]
    notices: tuple[Notice, ...]
    n_left_out: Mapping[Topic, int]
    project: str
    sent_at: datetime


def compose(
    notices: Sequence[Notice],
    n_left_out: Mapping[Topic, int],
    *,
    project: str,
    ui_url: str | None,
    severity: Severity,
    now: datetime,
) -> Message:
    """One message about all that waits for a channel."""
    ordered = sorted(notices, key=_rank)
    sections = [_section(notice, ui_url) for notice in ordered[:SHOWN_WHOLE]]
    short = [_section(notice, ui_url) for notice in ordered[SHOWN_WHOLE:SHOWN_AT_ALL]]
    left_out = dict(n_left_out)
    for notice in ordered[SHOWN_AT_ALL:]:
        left_out[notice.problem.topic] = left_out.get(notice.problem.topic, 0) + 1
    footer = [f"{section.mark} {section.title}" for section in short]
    if left_out:
        counts = ", ".join(f"{count} {TOPIC_NAMES[topic]}" for topic, count in left_out.items())
        footer.append(f"Held back, and only counted: {counts}. See `ragassets status`")
    return Message(
        message_id=_message_id(project, ordered, n_left_out),
        subject=f"[{project}] {_summary(ordered, sum(n_left_out.values()))}",
        severity=severity,
        sections=tuple(sections),
        footer=tuple(footer),
        notices=tuple(ordered),
        n_left_out=dict(n_left_out),
        project=project,
        sent_at=now,
    )


def trial_message(*, project: str, channel: str, ui_url: str | None, now: datetime) -> Message:
    """What `ragassets notifications test` sends."""
    problem = Problem(
        key="test",
        topic="run_failure",
        severity="warning",
        title=f"this is a test of the channel {channel!r}; nothing is wrong",
        details=("Messages about failed runs, dead letters and the like look like this.",),
        commands=("ragassets status",),
        path="runs",
    )
    notice = Notice(problem=problem, kind="news", at=now, since=now)
    return compose([notice], {}, project=project, ui_url=ui_url, severity="warning", now=now)


def _rank(notice: Notice) -> tuple[bool, bool, datetime, str]:
    """Errors first, ends last, then in the order of time."""
    problem = notice.problem
    return notice.kind == "ended", problem.severity != "error", notice.at, problem.key


def _section(notice: Notice, ui_url: str | None) -> Section:
    problem = notice.problem
    link = f"{ui_url}/{problem.path}" if ui_url and problem.path else ""
    if notice.kind == "ended":
        lines = (f"began at {_time(notice.since)}, ended by {_time(notice.at)}",)
        return Section("ENDED", _line(problem.title), lines, (), link)
    again = (f"since {_time(notice.since)}, told again because it has grown or changed",)
    return Section(
        MARKS[problem.severity],
        _line(problem.title),
        (*map(_line, problem.details), *(again if notice.kind == "changed" else ())),
        tuple(map(_line, problem.commands)),
        link,
    )


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LINE_CHARS else f"{line[: LINE_CHARS - 1]}…"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _summary(notices: Sequence[Notice], n_left_out: int) -> str:
    open_ones = [notice for notice in notices if notice.kind != "ended"]
    n_ended = len(notices) - len(open_ones)
    if len(notices) == 1 and not n_left_out:
        return _line(f"{'ended: ' if n_ended else ''}{notices[0].problem.title}")
    parts = [
        f"{count} {word}{'' if count == 1 or word == 'ended' else 's'}"
        for count, word in ((len(open_ones) + n_left_out, "problem"), (n_ended, "ended"))
        if count
    ]
    return ", ".join(parts)


def _message_id(project: str, notices: Iterable[Notice], n_left_out: Mapping[Topic, int]) -> str:
    parts = [[n.problem.key, n.kind, n.at.isoformat()] for n in notices]
    text = json.dumps([project, parts, sorted(n_left_out.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plain_text(message: Message) -> str:
    """For e-mail, and for whoever shows no blocks."""
    blocks: list[str] = []
    for section in message.sections:
        lines = [f"{section.mark}  {section.title}", *(f"  {line}" for line in section.lines)]
        lines += [f"  $ {command}" for command in section.commands]
        lines += [f"  {section.link}"] if section.link else []
        blocks.append("\n".join(lines))
    if message.footer:
        blocks.append("\n".join(message.footer))
    return "\n\n".join(blocks) + "\n"


def slack_blocks(message: Message) -> list[dict[str, Any]]:
    """For Slack: a header where there are several notices, and a section each."""
    if len(message.sections) == 1 and not message.footer:
        (only,) = message.sections
        return [_slack_section(_slack_text(only, prefix=f"[{message.project}] "))]
    blocks: list[dict[str, Any]] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": _cut(message.subject, SLACK_HEADER_CHARS)},
        }
    ]
    blocks += [_slack_section(_slack_text(section)) for section in message.sections]
    if message.footer:
        text = _cut("\n".join(map(_slack_escaped, message.footer)), SLACK_TEXT_CHARS)
        blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]})
    return blocks


def _slack_section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _slack_text(section: Section, prefix: str = "") -> str:
    title = _slack_escaped(f"{prefix}{section.title}")
    lines = [f"{SLACK_MARKS[section.mark]} *{title}*", *map(_slack_escaped, section.lines)]
    if section.commands:
        lines.append("\n".join(f"`{_slack_escaped(command)}`" for command in section.commands))
    if section.link:
        lines.append(f"<{_slack_escaped(section.link)}|Open in Dagster>")
    return _cut("\n".join(lines), SLACK_TEXT_CHARS)


def _slack_escaped(text: str) -> str:
    """Source: https://docs.slack.dev/messaging/formatting-message-text, escaping text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cut(text: str, n_chars: int) -> str:
    return text if len(text) <= n_chars else f"{text[: n_chars - 1]}…"


def html_body(message: Message) -> str:
    """For e-mail programs that show HTML; styles inline, since many drop style sheets."""
    parts = [_html_section(section) for section in message.sections]
    if message.footer:
        lines = "<br>".join(html.escape(line) for line in message.footer)
        parts.append(f'<p style="color:#555;font-size:13px">{lines}</p>')
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html><html><body style="font-family:Helvetica,Arial,sans-serif;font-size:14px;'
        f'color:#222;max-width:720px">\n{body}\n</body></html>\n'
    )


def _html_section(section: Section) -> str:
    colour = COLOURS[section.mark]
    lines = "".join(f"<div>{html.escape(line)}</div>" for line in section.lines)
    commands = "".join(
        f'<div><code style="background:#f4f4f4;padding:1px 4px">{html.escape(command)}</code></div>'
        for command in section.commands
    )
    target = html.escape(section.link, quote=True)
    link = f'<div><a href="{target}">Open in Dagster</a></div>' if section.link else ""
    return (
        f'<div style="border-left:4px solid {colour};padding:4px 12px;margin:12px 0">'
        f'<div style="font-weight:bold"><span style="color:{colour}">{section.mark}</span> '
        f"{html.escape(section.title)}</div>{lines}{commands}{link}</div>"
    )


def as_json(message: Message) -> dict[str, Any]:
    """For webhooks: the public shape; fields may be added, none goes."""
    return {
        "id": message.message_id,
        "project": message.project,
        "sent_at": message.sent_at.isoformat(),
        "subject": message.subject,
        "severity": message.severity,
        "text": plain_text(message),
        "notices": [_notice_json(notice) for notice in message.notices],
        "held_back": dict(message.n_left_out),
    }


def _notice_json(notice: Notice) -> dict[str, Any]:
    problem = notice.problem
    return {
        "key": problem.key,
        "topic": problem.topic,
        "severity": problem.severity,
        "kind": notice.kind,
        "title": problem.title,
        "details": list(problem.details),
        "commands": list(problem.commands),
        "path": problem.path,
        "since": notice.since.isoformat(),
        "at": notice.at.isoformat(),
    }
