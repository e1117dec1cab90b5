"""The sections of a document: which headings lie above each block."""

from collections.abc import Sequence

from ragassets.core.chunk_boundaries import BlockLike

_NO_LEVEL = 7
"""A title without level ranks below every heading with one, beside others of its kind."""


class SectionHeadings:
    """The path of headings at each block, outermost first."""

    def __init__(self, text: str, blocks: Sequence[BlockLike]) -> None:
        path: list[tuple[int, str]] = []
        self._paths: list[tuple[str, ...]] = []
        current: tuple[str, ...] = ()
        for block in blocks:
            if block.kind == "title":
                level = block.level or _NO_LEVEL
                title = " ".join(text[block.start_char : block.end_char].split())
                path = [entry for entry in path if entry[0] < level] + [(level, title)]
                current = tuple(title for _, title in path)
            self._paths.append(current)

    def at_block(self, index: int) -> tuple[str, ...]:
        """The headings above a block and, for a title, itself; none before the first block."""
        return self._paths[index] if index >= 0 else ()
