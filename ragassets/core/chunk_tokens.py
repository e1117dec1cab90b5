"""What the chunker knows of a document's tokens: where they begin and how many a span holds."""

import unicodedata
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

_LONGEST_TOKEN_CHARS = 32
"""No vocabulary has a longer token of text. BERT takes any word of more than 100 characters, such
as a line of base64, for one unknown token: such a token counts once for each
`_LONG_TOKEN_STEP_CHARS`."""
_LONG_TOKEN_STEP_CHARS = 8

JOINER = "\u200d"
"""Makes one emoji of two."""
_EXTENDING_CATEGORIES = frozenset({"Mn", "Mc", "Me", "Sk"})


class Tokenizer(Protocol):
    """An embedding model's tokenizer, for counting. Adds no special tokens and never truncates."""

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        ...

    @property
    def n_special_tokens(self) -> int:
        """How many tokens the model adds to each text, as `[CLS]` and `[SEP]`."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever any text could be tokenized differently."""
        ...

    @property
    def counts_by_word(self) -> bool:
        """Whether a text cut out at white space has the same tokens as inside its document."""
        ...

    def offsets(self, text: str) -> IntArray:
        """Where each token begins and ends: (n_tokens, 2), in characters, ascending."""
        ...

    def offsets_batch(self, texts: Sequence[str]) -> list[IntArray]:
        """`offsets` of each text."""
        ...


class TokenIndex:
    """The tokens of one document, for counting spans and for finding the places between them.

    `token_starts` are (n_tokens,) int64 character offsets, ascending, never on a space. `codes` is
    the text as (n_chars,) uint32 code points, `next_word` (n_chars + 1,) int64 the first non-space
    at or after each offset.
    """

    def __init__(self, text: str, offsets: IntArray) -> None:
        self.text = text
        self.codes: npt.NDArray[np.uint32] = np.frombuffer(
            text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32
        )
        self.is_space = is_white_space(self.codes)
        self.next_word = _next_non_space(self.is_space)
        starts = self.next_word[offsets[:, 0]]
        self._real_starts = np.maximum.accumulate(starts) if starts.size else starts
        self.token_starts = _with_long_tokens_split(self._real_starts, offsets[:, 1])

    @property
    def n_tokens(self) -> int:
        """Tokens of the document, long ones counted in steps."""
        return self.token_starts.size

    def token_at(self, positions: IntArray) -> IntArray:
        """How many tokens begin before each of these character offsets."""
        return np.searchsorted(self.token_starts, positions, side="left")

    def count(self, start_char: int, end_char: int) -> int:
        """How many tokens begin within a span, as the tokenizer counts."""
        first, last = np.searchsorted(self._real_starts, [start_char, end_char], side="left")
        return int(last - first)

    def character_from(self, position: int, end: int) -> int:
        """The first place at or after a position, up to `end`, that tears no character apart."""
        while position < end and (
            extends_character(self.text[position]) or self.text[position - 1 : position] == JOINER
        ):
            position += 1
        return position

    def is_word_start(self, position: int) -> bool:
        """Whether a cut here falls between words and so leaves the tokens as they are."""
        at_edge = position <= 0 or position >= len(self.text)
        return at_edge or bool(self.is_space[position - 1] or self.is_space[position])


_LAST_SPACE = 0x3000
_IS_SPACE: npt.NDArray[np.bool_] = np.array(
    [chr(code).isspace() for code in range(_LAST_SPACE + 2)]
)


def extends_character(character: str) -> bool:
    """Whether a code point belongs to the one before it: a combining mark, joiner or skin tone."""
    return character == JOINER or unicodedata.category(character) in _EXTENDING_CATEGORIES


def is_white_space(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Which code points are white space, as `str.isspace` says."""
    return _IS_SPACE[np.minimum(codes, _LAST_SPACE + 1)]


def _next_non_space(is_space: npt.NDArray[np.bool_]) -> IntArray:
    n_chars = is_space.size
    places = np.where(is_space, n_chars, np.arange(n_chars, dtype=np.int64))
    following = np.minimum.accumulate(places[::-1])[::-1]
    return np.append(following, n_chars).astype(np.int64)


def _with_long_tokens_split(starts: IntArray, ends: IntArray) -> IntArray:
    """The token starts, with further ones inside tokens that are longer than any word."""
    long_tokens = np.flatnonzero(ends - starts > _LONGEST_TOKEN_CHARS)
    if not long_tokens.size:
        return starts
    steps: list[IntArray] = [
        np.arange(
            int(starts[token]) + _LONG_TOKEN_STEP_CHARS, int(ends[token]), _LONG_TOKEN_STEP_CHARS
        )
        for token in long_tokens.tolist()
    ]
    return np.sort(np.concatenate([starts, *steps]))
