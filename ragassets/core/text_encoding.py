"""Bytes to text, whatever their encoding. What the text means belongs to the parsers."""

import codecs
import unicodedata

# Longest first: the UTF-32-LE mark starts with the UTF-16-LE mark.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Enough to tell text from rubbish; a longer look finds the same at a higher cost.
SAMPLE_CHARS = 65_536

# Old printer files carry form feeds and terminal logs escapes, so a few controls are still text.
MAX_CONTROL_SHARE = 0.02

# Encodings that files really have. Among all that Python knows, short texts in accented Latin come
# out as mainframe capitals or Arabic presentation forms.
_USUAL_ENCODINGS = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258",
    "cp874", "koi8_r", "cp866", "mac_roman", "cp932", "euc_jp", "gb18030", "big5", "euc_kr",
]  # fmt: skip

_ALPHABETS = frozenset({"LATIN", "CYRILLIC", "GREEK", "ARABIC", "HEBREW", "THAI"})
# Names of products stand inside foreign words; encodings that are wrong mix nearly all of them.
_MAX_MIXED_SHARE = 0.3

_LINE_CONTROLS = frozenset("\t\n\r\f\v\x1b\b")


def decode_text(data: bytes, *, declared: str | None = None) -> str:
    """Text of `data`, without a byte order mark; never fails.

    The order is what evidence is worth: a byte order mark, the NUL pattern of an unmarked UTF-16,
    valid UTF-8, the encoding that the document declares, statistics.

    Args:
        data: The raw bytes.
        declared: The encoding that the document or its transport names, wrong or not.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors="replace").removeprefix("\ufeff")
    if b"\0" in data:
        unmarked = _decode_unmarked_utf16(data)
        if unmarked is not None:
            return unmarked
    # ISO-2022 and HZ are valid ASCII, hence valid UTF-8, with their meaning in escapes.
    is_escaped = (declared or "").lower().startswith(("iso-2022", "hz", "utf-7"))
    for encoding in (declared, "utf-8") if is_escaped else ("utf-8", declared):
        text = _decode_strictly(data, encoding)
        if text is not None:
            return text
    return _decode_by_statistics(data)


def is_plausible_text(text: str) -> bool:
    """Whether decoded bytes are something that a person could have written."""
    sample = text[:SAMPLE_CHARS]
    # Judged by distinct characters: a document has a few hundred of them.
    n_odd = sum(sample.count(character) for character in set(sample) if _is_odd(character))
    return n_odd <= MAX_CONTROL_SHARE * len(sample)


def _is_odd(character: str) -> bool:
    if character in _LINE_CONTROLS:
        return False
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cn", "Cs")


def _decode_strictly(data: bytes, encoding: str | None) -> str | None:
    if not encoding:
        return None
    try:
        return data.decode(encoding.strip().strip("\"'"))
    except (UnicodeError, LookupError):
        return None


def _decode_unmarked_utf16(data: bytes) -> str | None:
    """UTF-16 text without a mark, or None: the byte order that gives more ASCII wins."""
    candidates = [_decode_strictly(data, encoding) for encoding in ("utf-16-le", "utf-16-be")]
    plausible = [text for text in candidates if text is not None and is_plausible_text(text)]
    return max(plausible, key=_n_ascii_chars, default=None)


def _n_ascii_chars(text: str) -> int:
    return sum(1 for character in text[:SAMPLE_CHARS] if character.isascii())


def _decode_by_statistics(data: bytes) -> str:
    from charset_normalizer import from_bytes

    western = data.decode("cp1252", errors="replace")
    matches = list(from_bytes(data, cp_isolation=_USUAL_ENCODINGS))
    if not matches or (_mixes_alphabets(str(matches[0])) and not _mixes_alphabets(western)):
        return western
    best = matches[0]
    for match in matches:
        # `é` and `è` are letters in half a dozen code pages: where they fit equally well, the most
        # used one is meant.
        is_as_good = match.chaos <= best.chaos and match.coherence >= best.coherence
        if match.encoding == "cp1252" and is_as_good:
            best = match
    return str(best)


def _mixes_alphabets(text: str) -> bool:
    """Whether words with foreign letters mostly mix alphabets, as `kцnnen` for `können` does."""
    words = [word for word in text[:SAMPLE_CHARS].split() if not word.isascii()]
    n_mixed = sum(1 for word in words if len(_alphabets(word)) > 1)
    return n_mixed > _MAX_MIXED_SHARE * len(words)


def _alphabets(word: str) -> set[str]:
    names = (unicodedata.name(letter, "").partition(" ")[0] for letter in word if letter.isalpha())
    return set(names) & _ALPHABETS
