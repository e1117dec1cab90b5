"""Text as it should have been encoded: mojibake, invalid and invisible characters, white space.

Works on one piece of text and knows nothing of documents; what is noise in a document is decided in
`ragassets.core.cleaning`, whose stage's version covers this module.
"""

import re
import unicodedata
from collections import Counter
from typing import Literal

import ftfy
from ftfy.badness import is_bad

TextShape = Literal["prose", "table", "code"]
"""Which white space carries meaning: none of it, line breaks and tabs, or all of it."""

# Everything that the slow path may change, so that clean text (nearly all of it) is only scanned.
_SUSPECT = re.compile("[^\n\t\r\x20-\x7e]")
_DATA_URI = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w=.-]+)*;base64,[A-Za-z0-9+/=]{64,}")
_TERMINAL_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# PDFium marks a hyphen at a line end with U+0002 or U+FFFE, and the line break may be missing.
# Source: https://pdfium.googlesource.com/pdfium/+/refs/heads/main/core/fpdftext/cpdf_textpage.cpp
HYPHEN_MARKS = "\u00ad\x02\ufffe"
_HYPHEN_MARK = re.compile(rf"[{HYPHEN_MARKS}]+(?:[ \t]*\r?\n[ \t]*(?=[^\W\d_]))?")

_BREAKS = re.compile("\r\n|[\r\x0b\u2028]")
_PARAGRAPH_BREAKS = re.compile("[\x0c\u2029]")
_FLAG_OR_TAG = re.compile("(\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f)|[\U000e0000-\U000e007f]")

# Invisible characters without meaning in a search index: zero-width space and no-break space, word
# joiner, invisible operators, Mongolian vowel separator, direction marks and embeddings.
_INVISIBLE = re.compile("[\u2060-\u2064\ufeff\u180e\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069]")

# Khmer, Thai, Lao and Burmese write no spaces: there the zero-width space is the word boundary.
_ZERO_WIDTH_SPACE = re.compile("(?<![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])\u200b")

# Joiners shape Arabic, Syriac, N'Ko, Indic, Sinhala and Mongolian letters and tie emoji together;
# after anything else they are leftovers. Source: Unicode Standard, section 23.2.
_JOINER = re.compile(
    "(?<![\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u18af\ufb50-\ufdff\ufe0f\ufe70-\ufeff"
    "\u2600-\u27bf\U0001f300-\U0001faff])[\u200c\u200d]+"
)
# Controls, noncharacters and what is only half of a character.
_INVALID = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufff0-\ufffb\ufffe\uffff]"
    "|["
    + "".join(f"{chr(0x10000 * p + 0xFFFE)}{chr(0x10000 * p + 0xFFFF)}" for p in range(1, 17))
    + "]"
)
# Bullets of the Symbol and Wingdings fonts, which word processors write as private-use characters.
_SYMBOL_BULLET = re.compile("[\uf0b7\uf0a7\uf076\uf0d8\uf0fc\uf0a8\uf06e]")

# One scan that says whether any of the patterns above has work to do.
_ODD = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\uf06e-\uf0fc"
    "\ufdd0-\ufdef\ufeff\ufff0-\ufffb\ufffe\uffff\U0001f3f4\U0001fffe-\U0001ffff\U0002fffe-\U0010ffff]"
)
_NEEDS_FTFY = re.compile("[\x80-\x9f\ud800-\udfff\ufb00-\ufb06]")
_MAX_ROUNDS = 8
"""Nested damage (text decoded wrongly three times) settles in two or three rounds."""

_SPACES = re.compile("[ \t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]+")
_EXOTIC_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TABLE_SPACES = re.compile(" {2,}")
_TRAILING_SPACES = re.compile(r"[ \t]+$", re.MULTILINE)
_LINE_EDGE_SPACES = re.compile(r" *\n *")
_TABLE_EDGE_SPACES = re.compile(r"[ \t]*\n *")
_BLANK_LINES = re.compile(r"\n{3,}")

# Mojibake, C1 controls, broken surrogates and ligatures. Not HTML entities (a page about HTML holds
# them on purpose), not quotation marks, not full-width forms: those are the author's.
_FTFY = ftfy.TextFixerConfig(
    unescape_html=False,
    uncurl_quotes=False,
    fix_character_width=False,
    fix_line_breaks=False,
    remove_terminal_escapes=False,
    remove_control_chars=False,
    normalization="NFC",
    explain=False,
)


def repair_text(text: str) -> tuple[str, int]:
    """The text with encoding damage mended and invisible characters removed.

    Words cut by a hyphen mark at a line end are joined. A lone half of a surrogate pair becomes
    U+FFFD. White space is left to `normalize_white_space`.

    Returns:
        The text in Unicode normal form C, and the number of characters of the input that were
        replaced or removed (line-break variants not counted).
    """
    text = _DATA_URI.sub("", text) if "base64," in text else text
    if not _SUSPECT.search(text):
        return (_BREAKS.sub("\n", text) if "\r" in text else text), 0
    text = _without_variant_breaks(text)
    repaired = _repair_once(text)
    # Removing an invisible character can complete a sequence that is itself broken.
    for _ in range(_MAX_ROUNDS):
        again = _repair_once(repaired)
        if again == repaired:
            break
        repaired = again
    if repaired == text:
        return text, 0
    return repaired, (Counter(text) - Counter(repaired)).total()


def _repair_once(text: str) -> str:
    # Mojibake first: its soft hyphens and C1 controls are halves of letters.
    if not text.isascii() and (_NEEDS_FTFY.search(text) or is_bad(text)):
        text = _without_variant_breaks(ftfy.fix_text(text, _FTFY))
    if _ODD.search(text):
        text = _HYPHEN_MARK.sub("", _TERMINAL_ESCAPE.sub("", text))
        text = _FLAG_OR_TAG.sub(lambda match: match[1] or "", text)
        text = _ZERO_WIDTH_SPACE.sub("", _INVISIBLE.sub("", text))
        text = _SYMBOL_BULLET.sub("•", _INVALID.sub("", _JOINER.sub("", text)))
    return unicodedata.normalize("NFC", text)


def _without_variant_breaks(text: str) -> str:
    return _PARAGRAPH_BREAKS.sub("\n\n", _BREAKS.sub("\n", text))


def normalize_white_space(text: str, shape: TextShape) -> str:
    """White space reduced to what carries meaning in text of this shape."""
    if shape == "code":
        return _TRAILING_SPACES.sub("", _EXOTIC_SPACES.sub(" ", text)).strip("\n")
    if shape == "table":
        text = _TABLE_SPACES.sub(" ", _EXOTIC_SPACES.sub(" ", text))
        text = _TABLE_EDGE_SPACES.sub("\n", text)
        return _BLANK_LINES.sub("\n\n", text).strip(" \n").rstrip()
    text = _LINE_EDGE_SPACES.sub("\n", _SPACES.sub(" ", text))
    return _BLANK_LINES.sub("\n\n", text).strip()
