"""Detection of media types, decoding, and the chain of parsers."""

import codecs
import errno
import io
import json
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.core import media_types
from ragassets.core.media_types import detect_media_type
from ragassets.core.parsing import (
    Element,
    ParsedDocument,
    assemble_document,
    parse_document,
    parsing_fingerprint,
)
from ragassets.core.text_encoding import decode_text, is_plausible_text
from ragassets.errors import (
    ConfigurationError,
    CorruptDocumentError,
    DocumentError,
    EmptyDocumentError,
    EncryptedDocumentError,
    MissingConverterError,
    MissingModelError,
    NeedsOcrError,
    OversizedDocumentError,
    SystemResourceError,
    UnsupportedFormatError,
)

URI = "file:///documents/a.txt"


class ScriptedParser:
    """Gives one text, or raises one error; remembers whether it was asked."""

    version = "1"

    def __init__(self, outcome, *, name="scripted", media_types=(media_types.PLAIN,)):
        self.name = name
        self.media_types = frozenset(media_types)
        self.outcome = outcome
        self.n_calls = 0

    def parse(self, data, *, uri, media_type):
        self.n_calls += 1
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        elements = [Element("text", self.outcome)]
        return assemble_document(elements, media_type=media_type, parser=self.name)


def _zip(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_text_of_a_document_is_its_elements_joined_by_a_blank_line():
    """Offsets of blocks are counted in this text by every later stage."""
    document = ParsedDocument(
        (Element("title", "One", None, 1), Element("text", "Two")), "text/plain", "p"
    )
    assert document.text == "One\n\nTwo"


def test_assembled_elements_are_stripped_non_empty_and_storable():
    """A NUL breaks PostgreSQL, a lone surrogate breaks Arrow: neither may leave the parsers."""
    document = assemble_document(
        [
            Element("text", "  a\0b\ud800c \r\n d "),
            Element("text", " \n\t "),
            Element("title", "t", level=9),
        ],
        media_type="text/plain",
        parser="p",
        title="  ",
    )
    assert [element.text for element in document.elements] == ["ab\ufffdc \n d", "t"]
    assert document.elements[1].level == 6
    assert document.title is None


@given(st.text(st.characters(), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_becomes_valid_utf_8_without_controls(text):
    """Whatever a library returns, tables and vector stores must accept it."""
    document = assemble_document([Element("text", text)], media_type="", parser="")
    for element in document.elements:
        assert element.text.encode("utf-8").decode("utf-8") == element.text
        assert element.text == element.text.strip() != ""
        assert not set(element.text) & set("\0\x01\x07\x0b\x0c\x1b\x7f\r")


# --- the chain -----------------------------------------------------------------------------------


def test_the_first_parser_with_text_wins():
    """The order of the parsers is a preference."""
    first, second = ScriptedParser("one", name="first"), ScriptedParser("two", name="second")
    assert parse_document(b"x", uri=URI, parsers=[first, second]).parser == "first"
    assert second.n_calls == 0


@pytest.mark.parametrize(
    "outcome",
    [
        CorruptDocumentError(uri=URI, detail="bad"),
        ValueError("a bug of a library"),
        RecursionError(),
        AssertionError(),
        "",
    ],
    ids=["refusal", "crash", "recursion", "assertion", "no text"],
)
def test_a_parser_that_fails_passes_the_document_on(outcome):
    """One library's bug costs nothing as long as another reads the bytes."""
    parsers = [ScriptedParser(outcome), ScriptedParser("text", name="second")]
    assert parse_document(b"x", uri=URI, parsers=parsers).parser == "second"


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (OSError(errno.ENOSPC, "full"), OSError),
        (OSError(errno.EMFILE, "too many"), OSError),
        (MissingModelError(model="m", detail="d"), MissingModelError),
        (SystemResourceError(resource="r", detail="d", fix="f"), SystemResourceError),
        (ModuleNotFoundError("no", name="lxml"), ConfigurationError),
        (MemoryError(), SystemResourceError),
    ],
    ids=["disk", "files", "model", "resource", "module", "memory"],
)
def test_trouble_of_the_machine_is_not_blamed_on_the_document(raised, expected):
    """Called corrupt, thousands of sound documents would leave the index for good."""
    second = ScriptedParser("text")
    with pytest.raises(expected) as caught:
        parse_document(b"x", uri=URI, parsers=[ScriptedParser(raised), second])
    assert not isinstance(caught.value, DocumentError)
    assert second.n_calls == 0


def test_an_unreadable_part_of_a_document_is_not_trouble_of_the_machine():
    """Libraries raise `OSError` on damaged bytes, too."""
    with pytest.raises(CorruptDocumentError):
        parse_document(b"x", uri=URI, parsers=[ScriptedParser(OSError("not a container"))])


@pytest.mark.parametrize("kind", [EncryptedDocumentError, OversizedDocumentError])
def test_encryption_and_bombs_end_the_chain_at_once(kind):
    """No other parser has the key, and another one might swallow the bomb."""
    second = ScriptedParser("text")
    with pytest.raises(kind):
        parse_document(b"x", uri=URI, parsers=[ScriptedParser(kind(uri=URI, detail="")), second])
    assert second.n_calls == 0


def test_a_crash_of_every_parser_is_a_corrupt_document_without_the_foreign_message():
    """Messages of foreign errors may quote the document, and dead letters are widely read."""
    with pytest.raises(CorruptDocumentError) as caught:
        parse_document(b"x", uri=URI, parsers=[ScriptedParser(ValueError("the secret text"))])
    assert "secret" not in str(caught.value)
    assert "ValueError" in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([CorruptDocumentError, EmptyDocumentError], CorruptDocumentError),
        ([EmptyDocumentError, CorruptDocumentError], EmptyDocumentError),
        ([CorruptDocumentError, NeedsOcrError], NeedsOcrError),
        ([EmptyDocumentError, MissingConverterError], MissingConverterError),
        ([MissingConverterError, NeedsOcrError], NeedsOcrError),
    ],
)
def test_the_most_telling_error_is_raised(outcomes, expected):
    """A person who reads the dead letter should learn what to do next."""
    parsers = [ScriptedParser(kind(uri=URI, detail="d")) for kind in outcomes]
    with pytest.raises(DocumentError) as caught:
        parse_document(b"x", uri=URI, parsers=parsers)
    assert type(caught.value) is expected


def test_memory_running_out_is_not_blamed_on_the_document():
    """The next worker may have more of it, so this is tried again."""
    with pytest.raises(SystemResourceError):
        parse_document(b"x", uri=URI, parsers=[ScriptedParser(MemoryError())])


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"", "a.pdf", EmptyDocumentError),
        (b" \r\n\t", "a.txt", EmptyDocumentError),
        (b"\x89PNG\r\n\x1a\n", "a.png", NeedsOcrError),
        (_zip(**{"a.txt": "x"}), "a.zip", UnsupportedFormatError),
        (bytes(range(256)) * 4, "a.bin", UnsupportedFormatError),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 200, "a.txt", UnsupportedFormatError),
    ],
)
def test_documents_that_no_parser_claims_are_refused_with_the_right_reason(data, name, expected):
    """Dead letters are sorted by reason."""
    with pytest.raises(expected):
        parse_document(data, uri=f"file:///{name}", parsers=[ScriptedParser("x")])


def test_the_fingerprint_names_parsers_versions_and_order():
    """A new parser version or another preference must parse the documents again."""
    first, second = ScriptedParser("", name="a"), ScriptedParser("", name="b")
    assert parsing_fingerprint([first, second]) == "a=1;b=1"
    assert parsing_fingerprint([second, first]) == "b=1;a=1"
    second.version = "2"
    assert parsing_fingerprint([first, second]) == "a=1;b=2"


# --- media types ---------------------------------------------------------------------------------

HTML = b"<!DOCTYPE html><html><body>x</body></html>"
MAIL = b"From: a@b.c\nTo: d@e.f\nMIME-Version: 1.0\nSubject: s\n\nbody"


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"%PDF-1.7\n", "a.txt", media_types.PDF),
        (b"junk before it\n%PDF-1.4", "a", media_types.PDF),
        (_zip(**{"word/document.xml": "x"}), "old.doc", media_types.DOCX),
        (_zip(**{"ppt/presentation.xml": "x"}), "a.zip", media_types.PPTX),
        (_zip(**{"xl/workbook.xml": "x"}), "a", media_types.XLSX),
        (_zip(mimetype="application/epub+zip"), "a.zip", media_types.EPUB),
        (_zip(mimetype=media_types.ODT), "a.docx", media_types.ODT),
        (b"PK\x03\x04 cut off", "a.docx", media_types.DOCX),
        (b"PK\x03\x04 cut off", "a.zip", media_types.ZIP),
        (b"{\\rtf1 x}", "a.doc", media_types.RTF),
        (HTML, "a.pdf", media_types.HTML),
        (HTML, "a.md", media_types.HTML),
        (b"<!-- c --> <?xml version='1.0'?>" + HTML, "a.txt", media_types.HTML),
        (b"<?xml version='1.0'?><html xmlns='x'/>", "a.xml", media_types.HTML),
        (b"<?xml version='1.0'?><feed/>", "a.txt", media_types.XML),
        (b"<h1 align=center>Title</h1>\n\n# x", "README.md", media_types.MARKDOWN),
        (b"# x", "a%20b.MD", media_types.MARKDOWN),
        (b"# x", "README", media_types.PLAIN),
        (MAIL, "a", media_types.EML),
        (MAIL.decode().encode("utf-16-le"), "a.eml", media_types.EML),
        (b"From: me\nTo: you\n\nA memo.", "memo.txt", media_types.PLAIN),
        (b'{"a": 1}', "a.txt", media_types.JSON),
        (b'{"a": 1}\n{"a": 2}\n', "a", media_types.JSON_LINES),
        (b'{"a": 1', "a.txt", media_types.PLAIN),
        (b'{"a": 1}', "a.md", media_types.MARKDOWN),
        (b"a;b\n1;2", "a.csv", media_types.CSV),
        (b"just text", "a.docx", media_types.PLAIN),
        ("text".encode("utf-16-be") * 20, "a.txt", media_types.PLAIN),
        (b"BM" + b"\x01" * 100, "a.bmp", media_types.UNKNOWN),
    ],
)
def test_the_content_decides_and_the_name_breaks_ties(data, name, expected):
    """Names lie: half of the `.doc` attachments of a mailbox are something else."""
    assert detect_media_type(data, f"s3://bucket/{name}") == expected


@given(st.binary(max_size=300), st.sampled_from(["a.txt", "a.docx", "a.doc", "a.json", "a"]))
@settings(max_examples=200, deadline=None)
def test_detection_never_fails(data, name):
    """Detection runs outside the chain, so nothing would catch it."""
    assert "/" in detect_media_type(data, name)


def test_hostile_comments_do_not_slow_detection_down():
    """One regular expression for prologs took exponential time on this."""
    data = b"<!-- a -->" * 6000 + b"x"
    assert detect_media_type(data, "a.txt") == media_types.PLAIN


# --- text encodings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("können äöüß", "latin-1"),
        ("“Hi” — café", "cp1252"),
        ("Привет, как дела? Это русский текст.", "cp1251"),
        ("Привет, как дела? Это русский текст.", "koi8-r"),
        ("Zażółć gęślą jaźń, proszę", "cp1250"),
        ("日本語のテキストです。", "euc-jp"),
        ("名前,年齢,住所\n佐藤太郎,30,東京", "cp932"),
        ("这是中文文本，测试一下", "gb18030"),
        ("Hamburgers are delicious", "utf-16-le"),
        ("Hamburgers are delicious", "utf-16-be"),
        ("Hamburgers are delicious", "utf-32"),
        ("naïve 日本", "utf-8-sig"),
    ],
)
def test_undeclared_encodings_are_found(text, encoding):
    """Old files say nothing about their encoding, and mojibake cannot be searched."""
    assert decode_text(text.encode(encoding)) == text


def test_a_declaration_counts_only_where_the_bytes_agree():
    """Pages that declare Latin-1 and hold UTF-8 are the rule; ISO-2022 is always ASCII bytes."""
    assert decode_text("né".encode(), declared="latin-1") == "né"
    assert decode_text(b"n\xe9", declared="latin-1") == "né"
    assert decode_text(b"n\xe9", declared="no-such-encoding").startswith("n")
    assert decode_text("日本".encode("iso2022_jp"), declared="ISO-2022-JP") == "日本"


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_utf_8_comes_back_unchanged(text):
    """The common case must be exact."""
    expected = text.removeprefix("\ufeff")
    assert decode_text(codecs.BOM_UTF8 + text.encode()) == expected


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_decoding_never_fails(data):
    """Parsers rely on it."""
    assert isinstance(decode_text(data), str)


def test_rubbish_is_not_text():
    """Random bytes decode in some code page; their characters give them away."""
    assert not is_plausible_text("\x00\x01\x02ab")
    assert is_plausible_text("tab\tline\nform feed\f" + json.dumps("ü"))
