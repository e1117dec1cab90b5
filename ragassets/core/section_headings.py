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
        self._descend_through_leading_titles(blocks)

    def _descend_through_leading_titles(self, blocks: Sequence[BlockLike]) -> None:
        """Give a title that another follows the path of that one, if it lies deeper."""
        for index in range(len(blocks) - 2, -1, -1):
            above, below = self._paths[index], self._paths[index + 1]
            is_run = blocks[index].kind == blocks[index + 1].kind == "title"
            if is_run and below[: len(above)] == above:
                self._paths[index] = below

    def at_block(self, index: int) -> tuple[str, ...]:
        """The headings above a block and, for a title, itself and those that follow at once."""
        return self._paths[index] if index >= 0 else ()
