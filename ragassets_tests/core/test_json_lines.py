"""Lines and packed bytes, however they are cut into blocks."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.json_lines import decompress, split_lines

LINES = st.lists(
    st.binary(max_size=12).map(lambda line: line.translate(None, b"\n\xef")), max_size=8
)
CUTS = st.lists(st.integers(1, 7), max_size=40)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """The data in blocks of these sizes, then the rest."""
    blocks, start = [], 0
    for size in sizes:
        blocks.append(data[start : start + size])
        start += size
    return [*blocks, data[start:]]


@given(LINES, CUTS, st.booleans())
def test_lines_do_not_depend_on_how_the_file_is_cut(
    lines: list[bytes], sizes: list[int], is_ended: bool
) -> None:
    """Numbers count blank lines too, as an editor does."""
    data = b"\n".join(lines) + (b"\n" if is_ended else b"")
    expected = [(n, line.strip()) for n, line in enumerate(lines, start=1) if line.strip()]
    assert list(split_lines(cut(data, sizes), max_bytes=100)) == expected


@given(CUTS)
def test_a_line_that_is_too_long_is_told_and_not_held(sizes: list[int]) -> None:
    """The next one is read again."""
    data = b"short\n" + b"x" * 50 + b"\nlast"
    found = list(split_lines(cut(data, sizes), max_bytes=10))
    assert found == [(1, b"short"), (2, None), (3, b"last")]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    """Windows writes one."""
    assert list(split_lines([b"\xef\xbb\xbf{}\r\n{}"], max_bytes=9)) == [(1, b"{}"), (2, b"{}")]


@given(st.lists(st.binary(max_size=2000), min_size=1, max_size=3), CUTS)
def test_packed_bytes_come_out_whole(parts: list[bytes], sizes: list[int]) -> None:
    """Also of several files that were joined."""
    packed = b"".join(gzip.compress(part) for part in parts)
    assert b"".join(decompress(cut(packed, sizes))) == b"".join(parts)


def test_a_bomb_unpacks_in_small_pieces() -> None:
    """A kilobyte per megabyte of zeros."""
    sizes = [len(piece) for piece in decompress([gzip.compress(bytes(20_000_000))])]
    assert (sum(sizes), max(sizes)) == (20_000_000, 1024**2)


@given(st.binary(min_size=1, max_size=300), st.data())
def test_packed_bytes_that_end_in_the_middle_are_told(data: bytes, drawn: st.DataObject) -> None:
    """What a broken upload leaves."""
    packed = gzip.compress(data)
    n_kept = drawn.draw(st.integers(1, len(packed) - 1))
    with pytest.raises(EOFError):
        list(decompress([packed[:n_kept]]))


def test_what_is_not_packed_is_told() -> None:
    """A wrong name."""
    with pytest.raises(zlib.error):
        list(decompress([b'{"id": 1}']))
