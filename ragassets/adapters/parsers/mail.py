"""EML and MSG: subject, body and text attachments; other attachments are named in the metadata."""

import email
import email.errors
import email.header
import email.policy
from dataclasses import dataclass, field
from email.message import EmailMessage, Message
from typing import TYPE_CHECKING, cast

from ragassets.adapters.parsers.html import parse_html
from ragassets.adapters.parsers.plain_text import split_paragraphs
from ragassets.core import media_types
from ragassets.core.parsing import Element, ParsedDocument, assemble_document
from ragassets.core.text_encoding import decode_text
from ragassets.errors import (
    CorruptDocumentError,
    EmptyDocumentError,
    EncryptedDocumentError,
    NeedsOcrError,
)

if TYPE_CHECKING:
    from oxmsg import Message as OutlookMessage

_HEADERS = ("from", "to", "cc", "date", "subject")
# Source: RFC 3156 section 4 (PGP/MIME) and RFC 8551 section 3.2.2 (S/MIME).
_SMIME_TYPES = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
_MAX_NESTED_MESSAGES = 20


@dataclass(slots=True)
class _Contents:
    """What the parts of a message hold."""

    uri: str
    elements: list[Element] = field(default_factory=list[Element])
    attachments: list[str] = field(default_factory=list[str])
    is_encrypted: bool = False
    has_pictures: bool = False


class EmlParser:
    """Reads internet messages (RFC 5322 and MIME)."""

    name = "eml"
    version = "1"
    media_types = frozenset({media_types.EML})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """The subject as a title, the body, the text attachments, forwarded messages.

        Raises:
            EncryptedDocumentError: Nothing but headers is readable.
            NeedsOcrError: The body is a picture.
        """
        # Headers are ASCII, so NULs mean that the whole message is in UTF-16.
        source = decode_text(data).encode() if b"\0" in data else data
        # The newer policies parse addresses in time that grows with the square of their number,
        # and crash on some malformed fields.
        message = email.message_from_bytes(source, policy=email.policy.compat32)
        contents = _Contents(uri)
        _read_part(message, contents, depth=0)
        metadata = _header_metadata(message)
        subject = metadata.get("subject", "")
        return _assemble_mail(contents, subject, metadata, media_type, self.name, uri)


class MsgParser:
    """Reads Outlook messages. Source: [MS-OXMSG]."""

    name = "msg"
    version = "1"
    media_types = frozenset({media_types.MSG})

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """The subject as a title, the body, the text attachments.

        Raises:
            EncryptedDocumentError: The message is encrypted (S/MIME or PGP).
            CorruptDocumentError: The container cannot be read.
        """
        from oxmsg import Message as OutlookMessage

        try:
            message = OutlookMessage.load(data)
        except MemoryError:
            raise
        except Exception as error:
            # olefile and oxmsg raise a dozen types on damaged containers.
            raise CorruptDocumentError(uri=uri, detail="not a readable Outlook message") from error
        contents = _Contents(uri, is_encrypted=_is_encrypted_outlook(message))
        _read_body(contents, message.body or "", message.html_body or "")
        for attachment in message.attachments:
            name = attachment.file_name or "attachment"
            payload = attachment.file_bytes
            if payload and (attachment.mime_type or "").startswith("text/"):
                _add_text(contents, decode_text(payload), attachment.mime_type or "", name)
            contents.attachments.append(name)
        metadata = {
            "from": message.sender or "",
            "to": ", ".join(recipient.email_address for recipient in message.recipients),
            "date": message.sent_date.isoformat() if message.sent_date else "",
            "subject": message.subject or "",
        }
        return _assemble_mail(contents, message.subject, metadata, media_type, self.name, uri)


def _is_encrypted_outlook(message: "OutlookMessage") -> bool:
    """S/MIME by the message class, PGP/MIME by the transport header that Outlook keeps.

    Source: [MS-OXCMSG] section 2.2.1.3, and [MS-OXOSMIME] section 2.1.
    """
    content_type = message.message_headers.get("Content-Type", "").lower()
    return message.message_class.upper() == "IPM.NOTE.SMIME" or content_type.startswith(
        "multipart/encrypted"
    )


def _assemble_mail(
    contents: _Contents,
    subject: str,
    metadata: dict[str, str],
    media_type: str,
    parser: str,
    uri: str,
) -> ParsedDocument:
    body = [element for element in contents.elements if element.text.strip()]
    if contents.is_encrypted and not body:
        raise EncryptedDocumentError(uri=uri, detail="the message is encrypted")
    if not body:
        kind = NeedsOcrError if contents.has_pictures else EmptyDocumentError
        raise kind(uri=uri, detail="the message has headers, but no text")
    if contents.attachments:
        metadata = {**metadata, "attachments": ", ".join(contents.attachments)}
    return assemble_document(
        [Element("title", subject, level=1), *body],
        media_type=media_type,
        parser=parser,
        title=subject,
        metadata={key: value for key, value in metadata.items() if value},
    )


def _header_metadata(message: Message) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for name in _HEADERS:
        raw = next((value for key, value in message.raw_items() if key.lower() == name), None)
        if raw:
            metadata[name] = " ".join(_decode_header(str(raw)).split())
    return metadata


def _decode_header(raw: str) -> str:
    """Text of a header field with encoded words (RFC 2047), or with bare 8-bit characters."""
    if not raw.isascii():
        # The email package keeps undeclared bytes as surrogates.
        raw = decode_text(raw.encode("utf-8", "surrogateescape"))
    try:
        return str(email.header.make_header(email.header.decode_header(raw)))
    except (email.errors.HeaderParseError, LookupError, UnicodeError, ValueError):
        return raw


def _read_part(part: Message, contents: _Contents, *, depth: int) -> None:
    kind = part.get_content_type()
    if kind == "multipart/encrypted" or (
        kind in _SMIME_TYPES and part.get_param("smime-type") != "signed-data"
    ):
        contents.is_encrypted = True
    elif kind == "multipart/alternative":
        _read_alternatives(part, contents, depth=depth)
    elif kind == "message/rfc822" and depth < _MAX_NESTED_MESSAGES:
        for message in _subparts(part):
            subject = _header_metadata(message).get("subject", "")
            contents.elements.append(Element("title", subject, level=2))
            _read_part(message, contents, depth=depth + 1)
    elif part.is_multipart():
        for item in _subparts(part):
            _read_part(item, contents, depth=depth)
    else:
        _read_leaf(part, kind, contents)


def _subparts(part: Message) -> list[Message]:
    payload: object = part.get_payload()
    return cast("list[Message]", payload) if isinstance(payload, list) else []


def _read_alternatives(part: Message, contents: _Contents, *, depth: int) -> None:
    """The plain text where there is one; else the richest version, which comes last.

    Source: RFC 2046 section 5.1.4.
    """
    versions = _subparts(part)
    plain = [item for item in versions if item.get_content_type() == "text/plain"]
    for item in [*plain, *reversed(versions)]:
        version = _Contents(contents.uri)
        _read_part(item, version, depth=depth)
        if any(element.text.strip() for element in version.elements) or version.is_encrypted:
            contents.elements.extend(version.elements)
            contents.attachments.extend(version.attachments)
            contents.is_encrypted |= version.is_encrypted
            return


def _read_leaf(part: Message, kind: str, contents: _Contents) -> None:
    name = cast("EmailMessage", part).get_filename()
    if name or part.get_content_disposition() == "attachment":
        contents.attachments.append(name or "attachment")
    if kind.startswith("text/"):
        payload: object = part.get_payload(decode=True)
        text = (
            decode_text(payload, declared=part.get_content_charset())
            if (isinstance(payload, bytes))
            else ""
        )
        _add_text(contents, text, kind, name)
    elif kind.startswith("image/"):
        contents.has_pictures = True


def _add_text(contents: _Contents, text: str, kind: str, name: str | None) -> None:
    if name and text.strip():
        contents.elements.append(Element("caption", name))
    if kind == media_types.HTML:
        page = parse_html(text, uri=contents.uri, parser="", media_type=media_types.HTML)
        contents.elements.extend(page.elements)
    else:
        contents.elements.extend(split_paragraphs(text))


def _read_body(contents: _Contents, plain: str, html: str) -> None:
    if plain.strip():
        _add_text(contents, plain, media_types.PLAIN, None)
    else:
        _add_text(contents, html, media_types.HTML, None)
