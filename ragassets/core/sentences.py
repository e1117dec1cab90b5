"""Where sentences begin, by rules, in the scripts that mark their ends.

One regular expression finds the marks, a few rules reject the full stops that end an abbreviation,
an initial or a list number. A statistical segmenter would be right a little more often and a
hundred times slower; a chunk border that falls one sentence early costs nothing.
"""

import re

_SENTENCE_END = re.compile(
    # CJK, Devanagari, Arabic, Urdu, Ethiopic, Khmer and Burmese marks end a sentence anywhere, the
    # first four only before white space. One class first, and nothing tried twice: fast, and linear
    # on a page of dots.
    r"[.!?…。！？｡।॥؟۔።។။]++[\"'”’»)\]」』）》]*+\s*+"
)
_MARKS_BEFORE_SPACE = frozenset(".!?…")

_ABBREVIATED = (
    "mr mrs ms dr prof rev hon gen col capt lt sgt sen rep gov pres st mt ft jr sr "
    "esq vs etc al cf approx ca fig figs eq eqs sec secs ch chap nos nr vol vols pp "
    "ed eds ref refs inc ltd co corp dept est univ assn bros jan feb mar apr jun jul "
    "aug sep sept oct nov dec e.g i.e u.s u.k p.s a.m p.m viz resp z.b d.h u.a bzw "
    "usw vgl evtl ggf hr fr bd mme mlle m.m env p.ex sra srta ud uds ee.uu pág núm "
)
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
"""Words, without their last full stop, after which a full stop rarely ends a sentence."""

_LONGEST_ABBREVIATION_CHARS = 8
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})$")


def sentence_starts(text: str) -> list[int]:
    """The offsets at which a sentence begins, ascending, without the start of the text.

    Args:
        text: any text; line breaks are white space, so hard-wrapped lines do not end a sentence.

    Returns:
        Offsets of the first non-space character of each sentence but the first. Linear in the text.
    """
    n_chars = len(text)
    return [
        start
        for match in _SENTENCE_END.finditer(text)
        if (start := match.end()) < n_chars and _ends_a_sentence(text, match[0], start)
    ]


def _ends_a_sentence(text: str, mark: str, start: int) -> bool:
    """Whether a mark, with the quotes and white space after it, stands before a new sentence."""
    if mark[0] not in _MARKS_BEFORE_SPACE:
        return True
    # In "3.5", "a.b.c" and "Yes!" he said, the mark ends nothing.
    if not mark[-1].isspace() or text[start].islower():
        return False
    is_single_stop = mark[0] == "." and mark[1].isspace()
    return not (is_single_stop and _is_abbreviation(text, start - len(mark)))


def _is_abbreviation(text: str, stop: int) -> bool:
    """Whether the full stop at `stop` belongs to the word before it."""
    before = text[max(0, stop - _LONGEST_ABBREVIATION_CHARS - 1) : stop]
    if not before:
        return False
    if _LIST_NUMBER.search(before):
        return True
    word = before.split()[-1].lstrip("([\"'“‘") if not before[-1].isspace() else ""
    is_initial = len(word) == 1 and word.isupper() and word != "I"
    return is_initial or word.lower() in _ABBREVIATIONS
