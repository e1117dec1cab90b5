"""What every vector store does the same way: sessions, aliases, and searches one at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from ragassets.core.indexing import check_name
from ragassets.core.searching import SearchHit, SearchRequest
from ragassets.errors import IndexVersionError


class AliasBook(Protocol):
    """Where the aliases of a store are written down."""

    def all(self) -> dict[str, str]:
        """Return alias to target."""
        ...

    def switch(self, alias: str, target: str, *, expected: str | None) -> None:
        """Point the alias at `target`, provided that it points at `expected` now.

        Raises:
            ConcurrentWriteError: it points elsewhere.
        """
        ...


class StoreSession(ABC):
    """The parts of `VectorStore` that do not depend on the engine."""

    def __init__(self, alias_book: AliasBook) -> None:
        """Keep the aliases there."""
        self._alias_book = alias_book

    def __enter__(self) -> Self:
        """Return the store; what needs a lock or a connection takes it when it is called."""
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release everything."""

    @abstractmethod
    def list_collections(self) -> list[str]:
        """Return the names of all complete collections, sorted."""

    @abstractmethod
    def search_batch(self, name: str, requests: Sequence[SearchRequest]) -> list[list[SearchHit]]:
        """Return one list of hits a request, in order."""

    def search(self, name: str, request: SearchRequest) -> list[SearchHit]:
        """Return the best hits, best first; equal scores are ordered by point id."""
        return self.search_batch(name, [request])[0]

    def alias_target(self, alias: str) -> str | None:
        """Return the collection that the alias points at."""
        return self.aliases().get(alias)

    def aliases(self) -> dict[str, str]:
        """Return all aliases with their targets."""
        return self._alias_book.all()

    def switch_alias(self, alias: str, target: str, *, expected: str | None) -> None:
        """Point the alias at `target`, provided that it points at `expected` now."""
        check_name("alias", alias)
        if target not in self.list_collections():
            raise IndexVersionError(
                index_version=target,
                problem=f"has no collection that alias {alias!r} could point at",
                fix=f"Build it first: ragassets index build {target}",
            )
        self._alias_book.switch(alias, target, expected=expected)

    def _refuse_if_served(self, name: str) -> None:
        """Refuse to drop what an alias points at."""
        for alias, target in self.aliases().items():
            if target == name:
                raise IndexVersionError(
                    index_version=name,
                    problem=f"is what alias {alias!r} points at",
                    fix="Promote another version first",
                )
