"""Cleaning: noise goes, content stays, and every offset tells the truth."""

import json
import re
import unicodedata
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ragassets.adapters.parsers.registry import default_parsers
from ragassets.core.cleaning import BLOCK_SEPARATOR, Block, CleanDocument, clean_document
from ragassets.core.parsing import parse_document
from ragassets.core.settings import CleaningConfig
from ragassets.core.text_repair import repair_text
from ragassets.errors import DocumentError, EmptyDocumentError
from ragassets_tests.corpora import corpus


class Part(NamedTuple):
    """The least that cleaning asks of an element."""

    kind: str
    text: str
    page: int | None = None
    level: int | None = None


def _clean(*parts: Part, title: str | None = None, **options: Any) -> CleanDocument:
    return clean_document(
        uri="file:///a", elements=parts, title=title, config=CleaningConfig(**options)
    )


def _pages(*lines: str, n_pages: int = 4) -> list[Part]:
    """The same lines on every page, `{page}` and `{body}` filled in, one element a line."""
    return [
        Part("text", line.format(page=page, body=f"{'abcdefgh'[page] * 9} is told here"), page)
        for page in range(1, n_pages + 1)
        for line in lines
    ]


def _again(document: CleanDocument, **options: Any) -> CleanDocument:
    parts = [
        Part(block.kind, document.text[block.start_char : block.end_char], block.page, block.level)
        for block in document.blocks
    ]
    return _clean(*parts, title=document.title, **options)


def test_blocks_are_laid_out_in_order_with_their_offsets() -> None:
    document = _clean(Part("title", "Rules", 1, 1), Part("text", "Be  kind.", 1), Part("code", "a"))
    assert document.text == "Rules\n\nBe kind.\n\na"
    assert document.title == "Rules"
    assert document.blocks == (
        Block("title", 0, 5, 1, 1),
        Block("text", 7, 15, 1, None),
        Block("code", 17, 18, None, None),
    )


def test_rows_serve_as_well_as_objects() -> None:
    """The tables hold elements as structs, which Polars hands out as dictionaries."""
    rows = [{"kind": "text", "text": "One.", "page": None, "level": None}]
    document = clean_document(uri="u", elements=rows, title=" A\n B ", config=CleaningConfig())
    assert (document.text, document.title) == ("One.", "A B")


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("schÃ¶n", "schön"),
        ("l’Ã©tÃ© Ã\xa0 Paris", "l’été à Paris"),
        ("dÃ\xada", "día"),
        ("e\u0301", "é"),
        ("a\x00b\x07c", "abc"),
        ("in\u00adfor\u200bma\u2060tion\ufeff", "information"),
        ("x\ud800y", "x\ufffdy"),
        ("\ud83d\ude00", "😀"),
        ("\x93quoted\x94", "“quoted”"),
        ("ﬁne ﬂow", "fine flow"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("re\x02\nport and re\ufffeport", "report and report"),
        ("\uf0b7 item", "• item"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्\u200dष", "क्\u200dष"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("lat\u200din", "latin"),
        ("ab\U000e0041\U000e0042c", "abc"),
        ("see data:image/png;base64," + "iVBORw0KGgo" * 9 + "= here", "see here"),
        ("＆ “quotes” &amp; ½ №", "＆ “quotes” &amp; ½ №"),
    ],
)
def test_damaged_text_is_mended_and_sound_text_left_alone(broken: str, mended: str) -> None:
    document = _clean(Part("text", f"begin {broken} end"))
    assert document.text == f"begin {mended} end"


def test_repaired_characters_are_counted() -> None:
    assert _clean(Part("text", "a\x00b\u200bc")).n_repaired_chars == 2
    assert _clean(Part("text", "Grüße, 世界 — “sound”")).n_repaired_chars == 0


def test_white_space_keeps_its_meaning_in_code_and_tables_only() -> None:
    code = "def f():\n\treturn  1  \n\n\nf()"
    document = _clean(
        Part("text", " a \u00a0 b\t c "),
        Part("code", f"\n{code}\n"),
        Part("table", "a |  b\n1\t2 \n"),
    )
    assert document.text == "a b c\n\ndef f():\n\treturn  1\n\n\nf()\n\na | b\n1\t2"


def test_wrapped_paragraphs_are_joined_and_short_lines_are_kept() -> None:
    """Typeset lines end anywhere; lines of an address or a receipt end where they mean to."""
    wrapped = (
        "The committee met on the third of May in the old town hall and\n"
        "decided after a long debate to postpone every decision to the next\n"
        "meeting, which was planned for autumn:\n- first the budget\n- then the roof"
    )
    joined = wrapped.replace("and\ndecided", "and decided").replace("next\nmeeting", "next meeting")
    assert _clean(Part("text", wrapped)).text == joined
    receipt = "TECHMART\nSubtotal 10.00\nTax 0.80\nTotal 10.80"
    assert _clean(Part("text", receipt)).text == receipt


def test_wrapped_chinese_is_joined_without_a_space() -> None:
    line = "人人生而自由在尊严和权利上一律平等他们赋有理性和良心"
    assert _clean(Part("text", f"{line}\n{line}")).text == line + line


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("the infor-\nmation desk", "the information desk"),
        ("a well-\nknown fact, as well-known as any", "a well-known fact, as well-known as any"),
        ("in the years 1990-\n1999", "in the years 1990-\n1999"),
        ("signed by Smith-\nJones", "signed by Smith-\nJones"),
    ],
)
def test_words_cut_at_line_ends_are_joined_in_paged_text(text: str, joined: str) -> None:
    assert _clean(Part("text", text, 1)).text == joined


def test_hyphens_of_text_without_pages_stay() -> None:
    """In Markdown or code comments a hyphen before a line break was typed by somebody."""
    assert _clean(Part("text", "pre-\nand post-war")).text == "pre-\nand post-war"


def test_running_headers_footers_and_page_numbers_go() -> None:
    document = _clean(*_pages("ACME  Handbook", "{body}", "Confidential", "Page {page} of 4"))
    assert document.text.split(BLOCK_SEPARATOR) == [
        f"{letter * 9} is told here" for letter in "bcde"
    ]
    assert document.n_removed == {"page_number": 4, "running_line": 8}


def test_bare_numbers_go_only_where_they_count_along_with_the_pages() -> None:
    """A table's last figure stands at the bottom of a page, too."""
    counted = _clean(*_pages("{body}", "{page}", n_pages=5))
    assert counted.n_removed == {"running_line": 5}
    figures = [part for page in (1, 2, 3) for part in (Part("text", "ab", page),)]
    figures += [Part("text", figure, page) for page, figure in ((1, "7"), (2, "7.5"), (3, "12"))]
    assert "12" in _clean(*figures[:1], figures[3], figures[1], figures[4], *figures[2:6:3]).text


def test_a_header_may_stand_on_every_other_page() -> None:
    """Books print the author on left pages and the title on right ones."""
    parts = [
        part
        for page in range(1, 9)
        for part in (
            Part("text", "A. Author" if page % 2 else "The Title", page),
            Part("text", f"{chr(96 + page) * 8} was told", page),
        )
    ]
    assert _clean(*parts).n_removed == {"running_line": 8}


def test_different_numbers_in_headers_are_content() -> None:
    """Invoices in one file differ in their number: that line is what people search for."""
    parts = [
        part
        for page, number in enumerate((4711, 4823, 5102, 5377), start=1)
        for part in (Part("text", f"Invoice {number}", page), Part("text", "a" * page, page))
    ]
    assert "Invoice 4823" in _clean(*parts).text


@pytest.mark.parametrize("n_lines", [2, 7, 30])
def test_copied_pages_are_no_furniture(n_lines: int) -> None:
    """A form that repeats page by page would lose everything, edge after edge."""
    lines = [f"Field {'abcdefghijklmnopqrstuvwxyzabcdef'[i : i + 3]}" for i in range(n_lines)]
    document = _clean(*_pages(*lines, n_pages=5))
    assert document.text.count("Field") == 5 * n_lines


def test_a_letterhead_of_five_lines_goes() -> None:
    """More than the lines that an edge is searched for: the inner ones show when those are gone."""
    letterhead = ["ACME Inc.", "1 Main Street", "Springfield", "Phone 555", "www.acme.example"]
    document = _clean(*_pages(*letterhead, "{body}"))
    assert document.text.split(BLOCK_SEPARATOR) == [
        f"{letter * 9} is told here" for letter in "bcde"
    ]


def test_tables_and_lines_within_a_page_are_never_running_lines() -> None:
    """A table's heading row repeats on every page; so does a word in the middle of one."""
    parts: list[Part] = []
    for page in (1, 2, 3):
        unique = [Part("text", f"{chr(97 + i) * 3} {'xyz'[page - 1] * 3}", page) for i in range(8)]
        parts += [
            Part("table", "a | b", page),
            *unique[:4],
            Part("text", "Note", page),
            *unique[4:],
        ]
    document = _clean(*parts)
    assert document.text.count("a | b") == 3
    assert document.text.count("Note") == 3
    assert document.n_removed == {}


def test_kinds_that_the_parser_knows_as_furniture_go() -> None:
    parts = [
        Part("header", "ACME"),
        Part("text", "Body"),
        Part("footer", "f"),
        Part("page_number", "1"),
    ]
    document = _clean(*parts)
    assert document.text == "Body"
    assert document.n_removed == {"footer": 1, "header": 1, "page_number": 1}


def test_boilerplate_lines_go_and_sentences_about_them_stay() -> None:
    noise = [
        "We use cookies to improve this site. By continuing you accept them.",
        "© 2024 ACME Inc. All rights reserved.",
        "Skip to main content",
        "Accept all cookies",
        "Back to top",
    ]
    content = [
        "We use cookies in the oven test to measure heat.",
        "All rights reserved under section 5 pass to the licensee.",
        "Copyright law protects works for seventy years.",
        "Go back to top management with the report.",
    ]
    document = _clean(*(Part("text", line) for line in noise + content))
    assert document.text.split(BLOCK_SEPARATOR) == content
    assert document.n_removed == {"boilerplate": 5}
    kept = _clean(*(Part("text", line) for line in noise), remove_boilerplate=False)
    assert len(kept.blocks) == 5


def test_a_faulty_element_costs_its_section_only() -> None:
    parts: list[Any] = [Part("text", "a"), {"kind": "text", "text": None}, {}, Part("text", "b")]
    document = clean_document(uri="u", elements=parts, title=None, config=CleaningConfig())
    assert document.text == "a\n\nb"
    assert document.n_removed == {"faulty": 2}


def test_a_document_of_noise_only_is_empty_and_says_what_was_removed() -> None:
    with pytest.raises(EmptyDocumentError, match=r"2 elements.*1 blank, 1 header"):
        _clean(Part("header", "ACME"), Part("text", "\u200b \n"))
    with pytest.raises(EmptyDocumentError, match="0 elements"):
        _clean()


def test_redaction_happens_before_blocks_are_laid_out() -> None:
    document = _clean(
        Part("text", "Ask ann@example.com or +49 30 901820."),
        Part("table", "bob@example.com | x"),
        title="CV of ann@example.com",
        redact=("email", "phone"),
    )
    assert document.text == "Ask [EMAIL] or [PHONE].\n\n[EMAIL] | x"
    assert document.title == "CV of [EMAIL]"
    assert document.n_removed == {"email": 2, "phone": 1}
    assert document.blocks[1][1:3] == (25, 36)


@pytest.mark.parametrize(
    "values",
    [
        {"redacted": ["email"]},
        {"redact": ["name"]},
        {"phone_region": "XX"},
        {"running_line_share": 0},
    ],
)
def test_a_wrong_configuration_is_refused_by_name(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(values))):
        CleaningConfig.model_validate(values)


_LINES = st.sampled_from(
    [
        "Page 1", "1", "2", "3", "ACME", "Report 2024", "All rights reserved.", "a-", "b c",
        "Skip to content", "We use cookies here and by", "continuing you accept all of them.",
        "A long line of prose that a typesetter has wrapped at the mar-", "gin of the page, again",
        "schÃ¶n", "e\u0301\u00ad", "x\u200d\u200b", "•  item", "人人生而自由在尊严和权利上" * 2,
        "ann@example.com", "+49 30", "901820", "\x85\x0c\x0b", "\t tab", "“”", "Ã\xad", "",
    ]
)  # fmt: skip
_TEXTS = st.lists(_LINES | st.text(max_size=12), min_size=1, max_size=5).map("\n".join)
_PARTS = st.builds(
    Part,
    st.sampled_from(["title", "text", "text", "list_item", "table", "code", "header", "caption"]),
    _TEXTS,
    st.sampled_from([None, 1, 2, 3, 4]),
    st.sampled_from([None, 1]),
)
_DOCUMENTS = st.lists(_PARTS, max_size=14).map(
    lambda parts: sorted(parts, key=lambda p: p.page or 0)
)


@settings(max_examples=120, deadline=None)
@given(_DOCUMENTS, st.booleans())
def test_cleaning_is_a_fixed_point_and_offsets_are_true(parts: list[Part], redacts: bool) -> None:
    """A re-run must not change text: every change costs embeddings. Offsets cite passages."""
    options = {"redact": ("email", "phone") if redacts else ()}
    try:
        document = _clean(*parts, **options)
    except EmptyDocumentError:
        return
    spans = [document.text[block.start_char : block.end_char] for block in document.blocks]
    assert BLOCK_SEPARATOR.join(spans) == document.text
    assert all(span.strip() for span in spans)
    second = _again(document, **options)
    assert second.text == document.text
    assert second.blocks == document.blocks
    assert second.title == document.title
    document.text.encode("utf-8")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_repair_is_a_fixed_point_and_gives_valid_utf8(text: str) -> None:
    repaired, n_chars = repair_text(text)
    repaired.encode("utf-8")
    assert repair_text(repaired) == (repaired, 0)
    assert 0 <= n_chars <= len(text)


def _compare_form(text: str) -> str:
    text = re.sub("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]", "", text)
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text))


def _real_documents() -> list[dict[str, Any]]:
    manifest = corpus("documents") / "manifest.jsonl"
    rows = map(json.loads, manifest.read_text(encoding="utf-8").splitlines())
    light = {"html", "htm", "md", "txt", "csv", "xml", "pdf", "docx", "pptx", "xlsx"}
    return [row for row in rows if row["expectation"] == "text" and row["format"] in light]


@pytest.mark.slow
def test_phrases_of_real_documents_survive_and_forbidden_ones_do_not() -> None:
    """What independent extractors found in the file is content by definition."""
    lost: list[tuple[str, str]] = []
    n_cleaned = 0
    for row in _real_documents():
        data = (corpus("documents").parent / row["path"]).read_bytes()
        if len(data) > 400_000:
            continue
        try:
            parsed = parse_document(data, uri=f"file:///{row['path']}", parsers=default_parsers())
        except DocumentError:
            continue
        document = clean_document(
            uri=row["path"], elements=parsed.elements, title=parsed.title, config=CleaningConfig()
        )
        before, after = _compare_form(parsed.text), _compare_form(document.text)
        lost += [
            (row["path"], phrase)
            for phrase in row["phrases"]
            if _compare_form(phrase) in before and _compare_form(phrase) not in after
        ]
        assert not any(phrase in after for phrase in row.get("forbidden") or [])
        n_cleaned += 1
    assert lost == []
    assert n_cleaned >= 60
