"""Who may find what: tenants and access lists, as conditions that every search carries; pure.

A point names its tenant and its readers; a search names the tenant and the principals it is made
for. Both are conditions like any filter: the store applies them while it ranks, so that what is
forbidden neither appears nor takes the place of what is allowed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

TENANT = "tenant"
"""Payload key of the source's tenant; missing where the source has none."""

READERS = "readers"
"""Payload key of who may read the chunk: the source's `acl`, or `EVERYBODY`. A key of its own,
because no engine finds "the list is empty" as fast as a word in an index."""

EVERYBODY = "*"
"""In an `acl` as in the payload: whoever asks. An empty `acl` means the same."""


@dataclass(frozen=True)
class AnyOf:
    """The payload's field equals one of the values or, being a list, has an element that does.

    A payload without the field satisfies nothing: what nobody labelled stays hidden.
    """

    key: str
    values: tuple[str, ...]
    """At least one."""

    def is_met(self, payload: Mapping[str, object]) -> bool:
        """Whether a payload satisfies it: the reference that engines must agree with."""
        found = payload.get(self.key)
        elements = cast("list[object]", found) if isinstance(found, list) else [found]
        return any(element in self.values for element in elements)


@dataclass(frozen=True)
class Access:
    """For whom a search is made. The default restricts nothing: a trusted caller's search."""

    tenant: str | None = None
    """Only this tenant's chunks; None is every tenant's, and those of sources without one."""
    principals: frozenset[str] | None = None
    """Users and groups (`user:bob`, `group:hr`); only chunks that one of them may read. Empty: only
    what everybody may read. None: access lists do not count."""

    @property
    def conditions(self) -> list[AnyOf]:
        """What a payload must satisfy."""
        wanted: list[AnyOf] = []
        if self.tenant is not None:
            wanted.append(AnyOf(TENANT, (self.tenant,)))
        if self.principals is not None:
            wanted.append(AnyOf(READERS, tuple(sorted({EVERYBODY, *self.principals}))))
        return wanted


EVERYTHING = Access()


def access_payload(*, tenant: str | None, acl: Sequence[str]) -> dict[str, object]:
    """Return the payload keys that the conditions of an `Access` ask for."""
    readers = sorted(set(acl)) or [EVERYBODY]
    return {READERS: readers} if tenant is None else {TENANT: tenant, READERS: readers}


def duplicate_scope(
    *, tenant: str | None, acl: Iterable[str]
) -> tuple[str | None, tuple[str, ...]]:
    """Return what two documents must have in common for one to stand for the other.

    A copy that other people may read, or that another tenant owns, must stay searchable for them.
    """
    return tenant, tuple(sorted(acl))
