"""Compares tables, catalog, landing zone and collections in both directions; repairs nothing.

What is compared with what stands in the modules `audit_*` beside this one, what a finding means in
`audit_findings.py`, and how each is mended in `ragassets/defs/repair.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ragassets.adapters.workspace import Workspace
from ragassets.queries.audit_findings import MEANINGS, Finding
from ragassets.queries.audit_points import audit_points
from ragassets.queries.audit_rows import audit_chunks, audit_documents
from ragassets.queries.audit_storage import (
    audit_catalog,
    audit_dead_letters,
    audit_landing_zone,
    audit_leftovers,
)


@dataclass(frozen=True)
class Audit:
    """What all checks found."""

    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        """Whether no check found anything that is not true."""
        return not any(self.damage)

    @property
    def damage(self) -> tuple[Finding, ...]:
        """Findings of something that is not true."""
        return tuple(entry for entry in self.findings if entry.count and not entry.is_harmless)

    def of(self, *names: str) -> tuple[Finding, ...]:
        """The findings of some checks."""
        return tuple(entry for entry in self.findings if entry.name in names)

    def as_json(self) -> dict[str, object]:
        """The public shape of `ragassets audit --json`: fields may be added, none goes."""
        counts = {entry.name: entry.count for entry in self.findings}
        examples = {entry.name: list(entry.examples) for entry in self.findings if entry.count}
        return {"clean": self.is_clean, **counts, "examples": examples}


def run_audit(workspace: Workspace) -> Audit:
    """Run every check."""
    found: dict[str, Finding] = {name: Finding(name) for name in MEANINGS}
    checks: tuple[Callable[[Workspace], Iterator[Finding]], ...] = (
        audit_points,
        audit_chunks,
        audit_documents,
        audit_dead_letters,
        audit_catalog,
        audit_landing_zone,
        audit_leftovers,
    )
    for check in checks:
        found.update((entry.name, entry) for entry in check(workspace))
    return Audit(tuple(found.values()))
