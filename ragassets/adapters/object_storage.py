"""Where the root lives: a local folder or a prefix of an object store.

The landing zone (`obstore`) and the tables (`deltalake`) open the same root through this module, so
they accept the same addresses. Credentials, regions and endpoints come from the environment alone
(`AWS_…`, `GOOGLE_…`, `AZURE_…`), which both libraries read by themselves. The translation of
storage errors lives here too, because both libraries report the same causes.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from obstore.store import LocalStore, ObjectStore, from_url

from ragassets.errors import (
    ConfigurationError,
    StorageUnavailableError,
    SystemResourceError,
    TransientError,
)

REMOTE_SCHEMES = frozenset({"s3", "gs", "az"})

# A store that does not answer must fail a run in about half a minute: the run is tried again later,
# while a worker that waits for minutes holds its slot.
RETRY_TIMEOUT_SECONDS = 30
MAX_RETRIES = 5

# Delta Lake decodes `%20` in a path and takes a backslash for a slash, so the log and the files
# would land in different folders. Polars takes `a=b` for a partition and the others for patterns.
_UNUSABLE_IN_A_PATH = re.compile(r"[=%\\*?\[\]{}\x00-\x1f\x7f]")
# What is percent-encoded in a URI is encoded once more on its way to the object store.
_UNUSABLE_IN_A_URI = re.compile(r"[^A-Za-z0-9._~:/+-]")

# ENOSPC and EDQUOT, as Rust's standard library words them.
_DISK_FULL = re.compile(r"os error (28|122)\b|No space left on device|Disk quota exceeded")
# `deltalake` joins the causes of an error by coloured arrows.
_ARROW = re.compile(r"\s*\x1b\[[0-9;]*m↳\x1b\[0m\s*")
# Signatures and keys in the query of a presigned URL.
_QUERY_SECRET = re.compile(r"(?i)\b(x-amz-[a-z-]+|awsaccesskeyid|signature|sig|token)=[^&\s\"']+")


@dataclass(frozen=True, slots=True)
class OpenedRoot:
    """A root that both libraries can use."""

    uri: str
    """What `deltalake` takes: an absolute local path, or the URI without a slash at its end."""
    store: ObjectStore = field(repr=False)
    storage_options: Mapping[str, str] = field(repr=False)

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine."""
        return isinstance(self.store, LocalStore)


def open_root(root: str) -> OpenedRoot:
    """Open a root, and create it when it is a local folder.

    Args:
        root: A path (`~` and relative paths work), or a `file`, `s3`, `gs` or `az` URI. For `az`
            the host is the container; the account comes from the environment.

    Raises:
        ConfigurationError: The scheme is unknown, or a local root is not a folder.
        StorageUnavailableError: A local root cannot be created or written.
    """
    parts = urlsplit(root)
    if len(parts.scheme) > 1 and "://" in root:
        if parts.scheme == "file":
            return _open_folder(Path(unquote(parts.path)), root)
        if parts.scheme in REMOTE_SCHEMES and parts.netloc:
            return _open_remote(root)
        raise ConfigurationError(
            key="root",
            value=root,
            problem="is not an address that ragassets can open",
            fix="Use a path, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix",
        )
    return _open_folder(Path(root).expanduser(), root)


def _open_folder(path: Path, root: str) -> OpenedRoot:
    """A local folder, created and checked for writing."""
    folder = path.absolute()
    _refuse_unusable(_UNUSABLE_IN_A_PATH, str(folder), root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError(
            key="root",
            value=root,
            problem="is not a folder, or lies below a file",
            fix="Name a folder that exists or can be created",
        ) from error
    except OSError as error:
        raise _unwritable(folder, error.strerror or "cannot be created") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, "is not writable for this user")
    return OpenedRoot(uri=str(folder), store=LocalStore(folder), storage_options={})


def _refuse_unusable(unusable: re.Pattern[str], path: str, root: str) -> None:
    """Refuse a path that the libraries below us would misread."""
    if found := unusable.search(path):
        raise ConfigurationError(
            key="root",
            value=root,
            problem=f"holds {found.group()!r}, which Delta Lake readers misread in a path",
            fix="Use letters, digits and . _ - / (spaces and other letters only in a local path)",
        )


def _unwritable(folder: Path, detail: str) -> StorageUnavailableError:
    """The error for a folder that we may not write."""
    fix = "Check its permissions, or set another `root`"
    return StorageUnavailableError(service=f"root {folder}", detail=detail, fix=fix)


def _open_remote(root: str) -> OpenedRoot:
    """A prefix of an object store; nothing is sent yet."""
    uri = root.rstrip("/")
    _refuse_unusable(_UNUSABLE_IN_A_URI, uri, root)
    try:
        # No `client_options`: any of them makes obstore forget AWS_ALLOW_HTTP and its like.
        store = from_url(
            uri,
            retry_config={
                "max_retries": MAX_RETRIES,
                "retry_timeout": timedelta(seconds=RETRY_TIMEOUT_SECONDS),
            },
        )
    except Exception as error:
        # obstore reports a bad setting by errors of many types; all of them mean the same.
        raise ConfigurationError(
            key="root",
            value=root,
            problem=f"cannot be opened ({one_line(error)})",
            fix="Check the address and the credentials in the environment",
        ) from error
    options = {
        "max_retries": str(MAX_RETRIES),
        "retry_timeout": f"{RETRY_TIMEOUT_SECONDS}s",
    }
    return OpenedRoot(uri=uri, store=store, storage_options=options)


def one_line(error: BaseException) -> str:
    """What a storage library said, on one line and without the secrets of a presigned URL."""
    text = _ARROW.sub(": ", str(error).split("Debug source:")[0])
    text = " ".join(text.split())
    return _QUERY_SECRET.sub(r"\1=***", text or type(error).__name__)[:400]


def storage_error(error: BaseException, service: str) -> TransientError:
    """Our error for a failure that a storage library reports."""
    if _DISK_FULL.search(str(error)):
        return SystemResourceError(
            resource=f"disk space of {service}",
            detail=one_line(error),
            fix="Free some space, then run again",
        )
    return StorageUnavailableError(service=service, detail=one_line(error))
