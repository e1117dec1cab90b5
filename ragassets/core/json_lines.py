"""Lines out of blocks of bytes, as they come from a file or a network; no more than one is held."""

import zlib
from collections.abc import Iterable, Iterator

MAX_BLOCK_BYTES = 1024**2
"""Of what is decompressed at once: a block of zeros may unpack to a thousand times its size."""

GZIP = 31
"""`wbits` of gzip with its header. Source: the documentation of zlib, `decompressobj`."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def split_lines(blocks: Iterable[bytes], *, max_bytes: int) -> Iterator[tuple[int, bytes | None]]:
    """Number, from 1, and content of every line that is not blank, however the blocks are cut.

    Args:
        blocks: What a file holds, in any pieces.
        max_bytes: Of one line; a longer one is None, and is not held.
    """
    number, held, is_long = 1, bytearray(), False
    for block in blocks:
        pieces = block.split(b"\n")
        for piece in pieces[:-1]:
            yield from _line(number, held + piece, max_bytes, is_long=is_long)
            number, held, is_long = number + 1, bytearray(), False
        held += pieces[-1]
        if len(held) > max_bytes:
            held, is_long = bytearray(), True
    yield from _line(number, held, max_bytes, is_long=is_long)


def decompress(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """What gzip packed, also several times in a row into one file.

    Raises:
        EOFError: It ends in the middle.
        zlib.error: It is damaged, or no gzip.
    """
    unpacker, is_within = zlib.decompressobj(GZIP), False
    for block in blocks:
        rest = block
        while rest:
            is_within = True
            unpacked = unpacker.decompress(rest, MAX_BLOCK_BYTES)
            if unpacked:
                yield unpacked
            rest = unpacker.unconsumed_tail
            if unpacker.eof:
                rest, is_within = unpacker.unused_data, False
                unpacker = zlib.decompressobj(GZIP)
        while is_within and (unpacked := unpacker.decompress(b"", MAX_BLOCK_BYTES)):
            yield unpacked
    if is_within and not unpacker.eof:
        raise EOFError


def _line(
    number: int, line: bytearray, max_bytes: int, *, is_long: bool
) -> Iterator[tuple[int, bytes | None]]:
    if is_long or len(line) > max_bytes:
        yield number, None
    elif content := bytes(line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line).strip():
        yield number, content
