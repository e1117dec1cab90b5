"""The error family, pinned by hand: callers catch these names, scripts read these reasons."""

import inspect
import pickle

from ragassets import errors
from ragassets.errors import MassDeletionError, RagAssetsError, TransientError

PUBLIC = {
    "BrokenRecordError": "broken_record",
    "ChangedDuringReadError": "changed_during_read",
    "ConcurrentWriteError": "concurrent_write",
    "ConfigurationError": "configuration",
    "CorruptDocumentError": "corrupt",
    "DocumentError": "document",
    "EmbeddingRefusedError": "embedding_refused",
    "EmbeddingServiceError": "embedding_service_unavailable",
    "EmptyDocumentError": "empty",
    "EncryptedDocumentError": "encrypted",
    "IndexVersionError": "index_version",
    "InvalidVectorError": "invalid_vector",
    "LeaseLostError": "lease_lost",
    "MassDeletionError": "mass_deletion",
    "MissingConverterError": "missing_converter",
    "MissingModelError": "missing_model",
    "MissingOutputError": "missing_output",
    "MissingRawBytesError": "missing_raw_bytes",
    "NeedsOcrError": "needs_ocr",
    "NotificationError": "notification",
    "ObjectGoneError": "object_gone",
    "OversizedDocumentError": "oversized",
    "PermanentError": "error",
    "RagAssetsError": "error",
    "RejectedDocumentError": "document",
    "ServiceError": "service_unavailable",
    "SourceBusyError": "source_busy",
    "SourceRefusedError": "source_refused",
    "PrivateAddressError": "private_address",
    "SourceUnavailableError": "source_unavailable",
    "StageError": "stage_failed",
    "StorageUnavailableError": "storage_unavailable",
    "SystemResourceError": "system_resource",
    "TransientError": "error",
    "UnknownDocumentError": "unknown_document",
    "UnknownNameError": "unknown_name",
    "UnsupportedFormatError": "unsupported_format",
    "VectorStoreLockedError": "vector_store_locked",
}


def test_the_family_is_this_one() -> None:
    """A new leaf belongs into the tree of the module's docstring, and here."""
    family = {
        name: member.reason
        for name, member in vars(errors).items()
        if inspect.isclass(member) and issubclass(member, RagAssetsError)
    }
    assert family == PUBLIC
    for name in family:
        assert name in (errors.__doc__ or "")


def test_an_error_survives_the_way_between_processes() -> None:
    """Workers raise them; a constructor with keywords only would break the pool instead."""
    error = MassDeletionError(source="a", n_removed=3, n_known=4, max_share=0.2)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.source, copy.n_removed) == (str(error), "a", 3)


def test_the_split_that_decides_retries_is_complete() -> None:
    """Every error is either permanent or transient, and says so."""
    for name in PUBLIC:
        kind = getattr(errors, name)
        assert kind.is_transient == issubclass(kind, TransientError), name
