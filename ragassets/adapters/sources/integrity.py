"""Whether what arrived is what was sent."""

import hashlib

from ragassets.core.source_settings import FetchConfig
from ragassets.errors import OversizedDocumentError, SourceUnavailableError


def check_size(uri: str, n_bytes: int, fetching: FetchConfig) -> None:
    """Refuse what is too large to be fetched.

    Raises:
        OversizedDocumentError: It is larger than `max_bytes`.
    """
    if n_bytes > fetching.max_bytes:
        detail = (
            f"has {n_bytes:,} bytes, more than fetch.max_bytes {fetching.max_bytes:,} allows; raise"
            " it under the source, or exclude the object"
        )
        raise OversizedDocumentError(uri=uri, detail=detail)


def check_length(uri: str, data: bytes, expected: int) -> None:
    """Refuse bytes that were cut short.

    Raises:
        SourceUnavailableError: There are fewer or more than expected.
    """
    if len(data) != expected:
        raise _damaged(uri, f"{len(data):,} of {expected:,} bytes")


def check_md5(uri: str, data: bytes, expected: str | None) -> None:
    """Refuse bytes that have another hash; without an expected one nothing is checked.

    Raises:
        SourceUnavailableError: The hashes differ.
    """
    if expected is None:
        return
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if found != expected:
        raise _damaged(uri, f"its MD5 is {found}, the store's is {expected}")


def _damaged(uri: str, how: str) -> SourceUnavailableError:
    return SourceUnavailableError(
        service=uri, detail=f"arrived damaged: {how}", fix="The next run fetches it again"
    )
