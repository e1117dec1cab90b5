"""The stable hashes behind ids, input hashes, code versions and data versions.

Everything here depends on its arguments only: not on the process, the machine, the order of a
mapping's keys or the time. What a hash covers is decided by the caller.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping

ID_BYTES = 16
"""128 bits: a billion documents collide with probability 1e-21, and the hex form is a UUID's."""


_CANONICAL_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def stable_hash(*parts: str | bytes | int | None) -> str:
    """Hash the parts, in order, into 32 hex characters.

    Parts are length-prefixed and typed, so `("ab", "c")`, `("a", "bc")` and `("ab", None, "c")` all
    differ. Source: BLAKE2b, RFC 7693.
    """
    digest = hashlib.blake2b(digest_size=ID_BYTES)
    for part in parts:
        tag, data = _encode(part)
        digest.update(tag + len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def _encode(part: str | bytes | int | None) -> tuple[bytes, bytes]:
    match part:
        case None:
            return b"n", b""
        case bytes():
            return b"b", part
        case int():
            return b"i", str(part).encode()
        case str():
            return b"s", part.encode("utf-8", "surrogatepass")


def fingerprint(parameters: Mapping[str, object]) -> str:
    """Hash of everything that decides a stage's output besides its input.

    Args:
        parameters: JSON-like values: the code's version and its settings. Key order is ignored.
    """
    return stable_hash(_CANONICAL_JSON.encode(parameters))


def content_hash(data: bytes) -> str:
    """SHA-256 of the raw bytes in hex: the name of a document's bytes in the landing zone."""
    return hashlib.sha256(data).hexdigest()


def document_id(source: str, uri: str) -> str:
    """Identity of a document: survives edits, not renames."""
    return stable_hash("document", source, uri)


def shard_index(document_id: str, n_shards: int) -> int:
    """Number of the shard that a document belongs to, in `[0, n_shards)`."""
    return int(document_id[:12], 16) % n_shards


def data_version(rows: Iterable[tuple[str, str]]) -> str:
    """Hash of a set of `(key, output_hash)` pairs, whatever their order."""
    digest = hashlib.blake2b(digest_size=ID_BYTES)
    for key, output_hash in sorted(rows):
        digest.update(f"{key}\x00{output_hash}\x01".encode())
    return digest.hexdigest()
