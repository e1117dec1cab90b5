"""The error family of ragassets.

Every error takes its facts as keyword arguments, keeps them as attributes and writes its own
message: what was attempted, on which thing, what was expected, what to do next. The split right
under the base class decides retries: a permanent error cannot be helped by running again, a
transient one may.

    RagAssetsError
    ├── PermanentError                     never retried as is
    │   ├── ConfigurationError             exit code 2
    │   │   ├── UnknownNameError           a source, version, alias … that the configuration lacks
    │   │   ├── MissingModelError          an embedding model that cannot be loaded
    │   │   └── UnknownDocumentError       a path or URI that no source has
    │   ├── DocumentError                  becomes a dead letter of category "document"
    │   │   ├── UnsupportedFormatError
    │   │   ├── CorruptDocumentError
    │   │   ├── EncryptedDocumentError
    │   │   ├── EmptyDocumentError
    │   │   ├── MissingConverterError
    │   │   ├── NeedsOcrError
    │   │   ├── BrokenRecordError          a line of a dump, or an item of an API
    │   │   ├── OversizedDocumentError     a decompression bomb, or as good as one
    │   │   └── RejectedDocumentError      validation said no
    │   ├── StageError                     our own step failed on this input; category "stage"
    │   │   ├── InvalidVectorError
    │   │   └── EmbeddingRefusedError      an embedding service said no to a text
    │   ├── MassDeletionError              a listing would delete too much; exit code 1
    │   ├── IndexVersionError              a version that may not be built, promoted or dropped
    │   └── MissingOutputError             a stage that made nothing of a document; exit code 1
    └── TransientError                     tried again in a later run
        ├── ServiceError                   category "service"; exit code 3
        │   ├── SourceUnavailableError
        │   │   ├── SourceRefusedError     address, credentials or permissions: a person mends it
        │   │   │   └── PrivateAddressError  a URL led into a private network
        │   │   ├── ObjectGoneError        listed, but not there any more
        │   │   └── SourceBusyError        another process reads it, and records what it says
        │   ├── StorageUnavailableError
        │   ├── EmbeddingServiceError
        │   ├── NotificationError          a channel did not take a message
        │   ├── VectorStoreLockedError
        │   └── LeaseLostError             another writer took over; nothing more is written
        ├── ChangedDuringReadError         the object changed while it was fetched
        ├── MissingRawBytesError           the landing zone lost or damaged what was fetched
        ├── ConcurrentWriteError           somebody else committed first
        └── SystemResourceError            memory, disk, GPU; category "system"
"""

import errno
from collections.abc import Sequence
from typing import ClassVar, Literal

ErrorCategory = Literal["document", "stage", "service", "system"]

EXHAUSTED = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EROFS}
)
"""Numbers of an `OSError` that say something of the machine: disk, open files, memory."""


class RagAssetsError(Exception):
    """Base of everything that ragassets raises on purpose."""

    category: ClassVar[ErrorCategory] = "stage"
    is_transient: ClassVar[bool] = False
    reason: str = "error"
    """A short, stable code for machines: `corrupt`, `encrypted`, `empty`, …"""

    def __reduce__(self) -> tuple[object, ...]:
        """Let an error travel between processes, though its constructor takes keywords only."""
        return _rebuild_error, (type(self), self.args, self.__dict__.copy())


def _rebuild_error(
    kind: type["RagAssetsError"], args: tuple[object, ...], state: dict[str, object]
) -> "RagAssetsError":
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class PermanentError(RagAssetsError):
    """A rerun with the same input cannot help."""


class MissingOutputError(PermanentError):
    """A stage that made nothing of a document, so there is nothing to show."""

    reason = "missing_output"

    def __init__(self, *, uri: str, stage: str, explanation: str) -> None:
        self.uri, self.stage, self.explanation = uri, stage, explanation
        super().__init__(
            f"{uri}: {stage} holds nothing of it: {explanation}. See `ragassets why {uri}`"
        )


class TransientError(RagAssetsError):
    """A rerun may help."""

    is_transient = True


class ConfigurationError(PermanentError):
    """The configuration, or the way a command was called, is wrong."""

    reason = "configuration"

    def __init__(self, *, key: str, value: object | None, problem: str, fix: str) -> None:
        """Name the key; its value is left out where it is None: absent, long or a secret."""
        self.key, self.value, self.problem, self.fix = key, value, problem, fix
        subject = key if value is None else f"{key}: {value!r}"
        super().__init__(f"{subject} {problem}. {fix}")


class UnknownNameError(ConfigurationError):
    """A name that the configuration does not define."""

    reason = "unknown_name"

    def __init__(self, *, kind: str, name: str, known: list[str]) -> None:
        self.kind, self.name, self.known = kind, name, known
        super().__init__(
            key=kind,
            value=name,
            problem="is not defined",
            fix=f"Known: {', '.join(known) or 'none'}",
        )


class MissingModelError(ConfigurationError):
    """A model or tokenizer that cannot be found or loaded."""

    reason = "missing_model"

    def __init__(
        self,
        *,
        model: str,
        detail: str,
        key: str = "embedding_models.model",
        bundled: str = "all-MiniLM-L6-v2",
    ) -> None:
        """Name the key under which the model stands, and the one that is always there."""
        self.model, self.detail = model, detail
        super().__init__(
            key=key,
            value=model,
            problem=f"cannot be loaded ({detail})",
            fix=f"Give a local path, a hub id that this machine can reach, or {bundled}",
        )


class UnknownDocumentError(ConfigurationError):
    """A path or URI that no source has."""

    reason = "unknown_document"

    def __init__(self, *, uri: str, explanation: str, near: list[str]) -> None:
        self.uri, self.explanation, self.near = uri, explanation, near
        hint = f"Did you mean {' or '.join(near)}?" if near else "See `ragassets status`"
        super().__init__(
            key="document", value=uri, problem=f"is not known: {explanation}", fix=hint
        )


class DocumentError(PermanentError):
    """The document itself is the reason: it becomes a dead letter and is not tried again as is."""

    category = "document"
    reason = "document"

    def __init__(self, *, uri: str, detail: str) -> None:
        self.uri, self.detail = uri, detail
        super().__init__(f"{uri}: {detail}")


class UnsupportedFormatError(DocumentError):
    """No parser is known for these bytes."""

    reason = "unsupported_format"


class CorruptDocumentError(DocumentError):
    """Every parser for this format refused the bytes."""

    reason = "corrupt"


class EncryptedDocumentError(DocumentError):
    """The document needs a password or key."""

    reason = "encrypted"


class EmptyDocumentError(DocumentError):
    """The document holds no text."""

    reason = "empty"


class MissingConverterError(DocumentError):
    """The format needs an outside program that is not installed."""

    reason = "missing_converter"


class NeedsOcrError(DocumentError):
    """The document holds pictures of text only."""

    reason = "needs_ocr"


class BrokenRecordError(DocumentError):
    """A record that cannot be told from others: it is no object, or its identity is missing."""

    reason = "broken_record"

    def __init__(self, *, place: str, detail: str) -> None:
        self.place = place
        super().__init__(uri=place, detail=detail)


class OversizedDocumentError(DocumentError):
    """The document unpacks to more than any honest one; no parser may try."""

    reason = "oversized"


class RejectedDocumentError(DocumentError):
    """Validation said no; `reason` names the rule."""

    def __init__(self, *, uri: str, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(uri=uri, detail=detail)


class StageError(PermanentError):
    """A step of ours failed on this input."""

    reason = "stage_failed"

    def __init__(self, *, stage: str, subject: str, detail: str) -> None:
        self.stage, self.subject, self.detail = stage, subject, detail
        super().__init__(f"{stage} failed on {subject!r}: {detail}")


class InvalidVectorError(StageError):
    """An embedding is not finite, is zero, or has the wrong dimension."""

    reason = "invalid_vector"


class EmbeddingRefusedError(StageError):
    """An embedding service refuses one text for good: too long, or not to its taste."""

    reason = "embedding_refused"


class MassDeletionError(PermanentError):
    """A complete listing would remove more of a source than its configuration allows."""

    reason = "mass_deletion"

    def __init__(self, *, source: str, n_removed: int, n_known: int, max_share: float) -> None:
        self.source, self.n_removed, self.n_known, self.max_share = (
            source,
            n_removed,
            n_known,
            max_share,
        )
        super().__init__(
            f"source {source!r}: the listing would remove {n_removed} of {n_known} documents, more"
            f" than max_delete_share {max_share:g} allows; nothing was deleted. If it is meant, run"
            f" `ragassets ingest {source} --confirm-deletions`, or start the job observe_sources"
            f" with confirm_deletions: [{source}] in its run config"
        )


class IndexVersionError(PermanentError):
    """An index version cannot be built, promoted, rolled back or dropped."""

    reason = "index_version"

    def __init__(self, *, index_version: str, problem: str, fix: str) -> None:
        self.index_version, self.problem, self.fix = index_version, problem, fix
        super().__init__(f"index version {index_version!r} {problem}. {fix}")


class ServiceError(TransientError):
    """A service did not answer, or said to come back later."""

    category = "service"
    reason = "service_unavailable"

    def __init__(self, *, service: str, detail: str, fix: str = "Try again later") -> None:
        self.service, self.detail, self.fix = service, detail, fix
        super().__init__(f"{service}: {detail}. {fix}")


class SourceUnavailableError(ServiceError):
    """A source, or one object of it, cannot be read now."""

    reason = "source_unavailable"

    retry_after_seconds: float | None = None
    """How long it asked to be left alone."""


class SourceRefusedError(SourceUnavailableError):
    """A source that answers, and says no: another try changes nothing until a person does."""

    reason = "source_refused"


class PrivateAddressError(SourceRefusedError):
    """A URL leads to an address that is not public and was not allowed."""

    reason = "private_address"

    def __init__(self, *, host: str, addresses: Sequence[str], url: str = "") -> None:
        self.host, self.addresses, self.url = host, tuple(addresses), url
        super().__init__(
            service=url or host,
            detail=f"{host} is at {', '.join(self.addresses[:3])}, which is not public: not asked",
            fix=f"If it is meant, add {host!r} to web.allow_private of the source",
        )


class ObjectGoneError(SourceUnavailableError):
    """An object that was listed and is gone; the next listing says so too."""

    reason = "object_gone"

    def __init__(self, *, uri: str) -> None:
        self.uri = uri
        super().__init__(
            service=uri, detail="is not there any more", fix="The next listing will say so"
        )


class SourceBusyError(SourceUnavailableError):
    """Another process of this project reads a source that only one may read at a time."""

    reason = "source_busy"

    def __init__(self, *, source: str, detail: str) -> None:
        self.source = source
        super().__init__(
            service=f"source {source!r}",
            detail=f"is being read ({detail})",
            fix="Nothing is lost: what it reads is recorded. Run again when it has ended",
        )


class StorageUnavailableError(ServiceError):
    """The root (landing zone and tables) or the catalog cannot be read or written."""

    reason = "storage_unavailable"


class EmbeddingServiceError(ServiceError):
    """An embedding service did not embed some texts, whatever was tried."""

    reason = "embedding_service_unavailable"

    def __init__(self, *, service: str, detail: str, is_outage: bool) -> None:
        self.is_outage = is_outage
        """It failed on every text, so none of them is to blame."""
        fix = "The next run tries again; `ragassets doctor` says whether it is back"
        super().__init__(service=service, detail=detail, fix=fix)


class NotificationError(ServiceError):
    """A channel of notifications did not take a message; what waits for it is sent again later."""

    reason = "notification"

    def __init__(
        self,
        *,
        channel: str,
        detail: str,
        fix: str = "It is tried again later",
        retry_after_seconds: float | None = None,
    ) -> None:
        self.channel, self.retry_after_seconds = channel, retry_after_seconds
        super().__init__(service=f"notification channel {channel!r}", detail=detail, fix=fix)


class VectorStoreLockedError(ServiceError):
    """Another process owns the embedded vector store."""

    reason = "vector_store_locked"

    def __init__(
        self, *, path: str, holder: str, waited_seconds: float, free_after_seconds: float = 0.0
    ) -> None:
        self.path, self.holder, self.waited_seconds = path, holder, waited_seconds
        self.free_after_seconds = free_after_seconds
        after = (
            f"; if its machine is gone, it is free {free_after_seconds:g} s after its last sign of"
            " life"
        )
        super().__init__(
            service=f"vector store {path}",
            detail=f"held by {holder}; waited {waited_seconds:g} s",
            fix="Let that process end, or raise vector_store_timeout_seconds"
            + (after if free_after_seconds else ""),
        )


class LeaseLostError(ServiceError):
    """Another process took over what this one was writing, or may have: it stops at once."""

    reason = "lease_lost"

    def __init__(self, *, name: str, detail: str) -> None:
        self.name = name
        super().__init__(
            service=f"lease {name}",
            detail=detail,
            fix="Nothing more was written; what was is finished by the next run",
        )


class ChangedDuringReadError(TransientError):
    """An object changed while it was being fetched; the next run sees its new state."""

    category = "service"
    reason = "changed_during_read"

    def __init__(self, *, uri: str) -> None:
        self.uri = uri
        super().__init__(f"{uri} changed while it was read; the next run fetches it again")


class MissingRawBytesError(TransientError):
    """The landing zone has lost or damaged the bytes of one document."""

    category = "service"
    reason = "missing_raw_bytes"

    def __init__(self, *, service: str, content_hash: str, problem: str) -> None:
        self.service, self.content_hash, self.problem = service, content_hash, problem
        super().__init__(
            f"{service}: object {content_hash} {problem}. The next run fetches it from its source"
            " again; what was made of it before stays until then"
        )


class ConcurrentWriteError(TransientError):
    """Another writer committed to the same partition first, so this result was not written."""

    category = "system"
    reason = "concurrent_write"

    def __init__(self, *, table: str, partition: str) -> None:
        self.table, self.partition = table, partition
        super().__init__(
            f"table {table!r}, partition {partition!r}: another run committed first; nothing was"
            " overwritten. Run again"
        )


class SystemResourceError(TransientError):
    """The machine ran out of something: memory, disk, GPU."""

    category = "system"
    reason = "system_resource"

    def __init__(self, *, resource: str, detail: str, fix: str) -> None:
        self.resource, self.detail, self.fix = resource, detail, fix
        super().__init__(f"{resource}: {detail}. {fix}")
