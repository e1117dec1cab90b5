"""One writer at a time, on whatever machine: a lease in an object below a remote root.

`<root>/locks/<index version>/lease.json` is replaced only by whoever read what it replaces
(conditional writes by ETag), so that of two takers one wins. A thread renews it; a holder that dies
leaves it to the next one after `TTL_SECONDS` without a renewal.

What a lease cannot do is stop a process that is paused between its last look and its request to
another service. So a holder looks right before every write and every deletion, by replacing the
object once more where its last renewal is not fresh, and always before a deletion.
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from ragassets.adapters.object_storage import storage_error
from ragassets.adapters.store_lock import own_holder
from ragassets.core.leases import Lease
from ragassets.errors import LeaseLostError, StorageUnavailableError, VectorStoreLockedError

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from obstore.store import ObjectStore

TTL_SECONDS = 60.0
"""Without a renewal for so long, the lease may be taken. A renewal every third of it survives two
that are lost, and a retry of `object_storage` that takes 30 s."""

CLOCK_SKEW = timedelta(minutes=5)
"""How far the clocks of the store and of a machine may lie apart. Who has watched a lease for its
whole time by its own clock needs no margin; who just came has the object's time alone."""

POLL_SECONDS = 1.0

_REFUSED = (
    AlreadyExistsError,
    PreconditionError,
    FileExistsError,
    FileNotFoundError,
)
"""What a conditional write raises when the object is not what was read."""


class _Found(NamedTuple):
    lease: Lease
    version: "UpdateVersion"
    modified_at: datetime


class ObjectLease:
    """Held from `acquire` to `release`, as long as it is renewed; `confirm` says whether it is."""

    def __init__(
        self,
        store: "ObjectStore",
        path: str,
        *,
        name: str,
        timeout_seconds: float,
        ttl_seconds: float = TTL_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        is_renewing: bool = True,
    ) -> None:
        """Prepare the lease; nothing is sent before `acquire`.

        Args:
            store: has conditional writes.
            path: of the object.
            name: what people call it, for messages.
            timeout_seconds: how long to wait for whoever holds it.
            ttl_seconds: how long it lasts without a renewal.
            monotonic: a clock that goes on while the process is stopped.
            is_renewing: off for tests of a holder that cannot renew.
        """
        self._store, self._path, self._name = store, path, name
        self._timeout_seconds, self._ttl_seconds = timeout_seconds, ttl_seconds
        self._monotonic, self._is_renewing = monotonic, is_renewing
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._lease: Lease | None = None
        self._version: UpdateVersion = {}
        self._renewed_at = 0.0
        self._loss = "it was given back before"

    @property
    def token(self) -> int:
        """The number of this taking; 0 where it is not held."""
        return self._lease.token if self._lease else 0

    def acquire(self) -> None:
        """Take the lease, waiting for its holder up to the time-out.

        Raises:
            VectorStoreLockedError: somebody else holds it for longer.
            StorageUnavailableError: the store cannot be reached.
        """
        deadline = self._monotonic() + self._timeout_seconds
        watched: tuple[Mapping[str, object], float] | None = None
        while True:
            found = self._read()
            if watched is None or found is None or watched[0] != found.version:
                watched = (found.version if found else {}, self._monotonic())
            if self._is_free(found, watched[1]) and self._take(found):
                break
            if found is not None and self._monotonic() >= deadline:
                raise VectorStoreLockedError(
                    path=self._name,
                    holder=str(found.lease.holder),
                    waited_seconds=self._timeout_seconds,
                    free_after_seconds=(CLOCK_SKEW.total_seconds() + self._ttl_seconds),
                )
            time.sleep(min(POLL_SECONDS, self._ttl_seconds / 10))
        if self._is_renewing:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
            self._thread.start()

    def confirm(self, *, is_fresh: bool = False) -> None:
        """Make sure that the lease is held.

        Args:
            is_fresh: ask the store now, however short ago it was asked.

        Raises:
            LeaseLostError: somebody has taken it.
            StorageUnavailableError: somebody may have: the store does not answer.
        """
        age = self._monotonic() - self._renewed_at
        if self._lease is not None and not is_fresh and age < self._ttl_seconds / 2:
            return
        self._renew(is_needed=True)

    def release(self) -> None:
        """Give it back; nothing happens where it is not held any more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._lock:
            lease, self._lease = self._lease, None
            if lease is None:
                return
            try:
                self._put(lease.released(), self._version)
            except (BaseError, OSError):
                return  # taken by somebody else, or free when its time is over

    def _is_free(self, found: _Found | None, watched_since: float) -> bool:
        """Whether nobody holds it, as far as two clocks can tell; see `CLOCK_SKEW`."""
        if found is None or found.lease.is_released:
            return True
        if self._monotonic() - watched_since >= self._ttl_seconds:
            return True
        age = datetime.now(UTC) - found.modified_at
        return age >= timedelta(seconds=self._ttl_seconds) + CLOCK_SKEW

    def _read(self) -> _Found | None:
        """What the object says now; None where there is none, or one that is no lease of ours."""
        try:
            answer = self._store.get(self._path)
            meta = answer.meta
            content = bytes(answer.bytes())
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise storage_error(error, f"lease {self._name}") from error
        version = _version(meta["e_tag"], meta["version"])
        return _Found(Lease.from_json(content), version, meta["last_modified"])

    def _take(self, found: _Found | None) -> bool:
        """Replace what was found; False where somebody else was faster."""
        nonce = uuid.uuid4().hex
        lease = Lease.taken_after(found.lease if found else None, own_holder(), nonce)
        with self._lock:
            started = self._monotonic()
            try:
                self._put(lease, found.version if found else None)
            except _REFUSED:
                return self._has_written(lease, started)
            except (BaseError, OSError) as error:
                raise storage_error(error, f"lease {self._name}") from error
        return True

    def _put(self, lease: Lease, version: "UpdateVersion | None") -> None:
        """Write the object over this version of it, None for none; remember what was written."""
        started = self._monotonic()
        mode: PutMode = "create" if version is None else version
        made = self._store.put(self._path, lease.to_json(), mode=mode)
        self._version = _version(made["e_tag"], made["version"])
        # From before the request: when it was done is not known.
        self._lease, self._renewed_at = (None if lease.is_released else lease), started

    def _has_written(self, lease: Lease, started: float) -> bool:
        """Whether a refused write is there all the same.

        One whose answer was lost is sent again, and then refused because of itself.
        """
        found = self._read()
        if found is None or found.lease != lease:
            return False
        self._lease, self._version, self._renewed_at = lease, found.version, started
        return True

    def _renew(self, *, is_needed: bool) -> None:
        """Replace our own object once more.

        Args:
            is_needed: the caller is about to write and has to know.

        Raises:
            LeaseLostError: it is not ours any more.
            StorageUnavailableError: nobody knows.
        """
        with self._lock:
            if self._lease is None:
                raise LeaseLostError(name=self._name, detail=self._loss)
            renewed, started = self._lease.renewed(), self._monotonic()
            try:
                self._put(renewed, self._version)
            except _REFUSED as error:
                if not self._has_written(renewed, started):
                    self._lease, self._loss = None, self._describe_loss()
                    raise LeaseLostError(name=self._name, detail=self._loss) from error
            except (BaseError, OSError) as error:
                if is_needed or started - self._renewed_at >= self._ttl_seconds / 2:
                    raise storage_error(error, f"lease {self._name}") from error

    def _describe_loss(self) -> str:
        found = self._read()
        return f"it was taken by {found.lease.holder}" if found else "somebody has removed it"

    def _keep(self) -> None:
        """Renew until told to stop, or until it is lost: then `confirm` says so."""
        while not self._stopping.wait(self._ttl_seconds / 3):
            try:
                self._renew(is_needed=False)
            except LeaseLostError:
                return
            except StorageUnavailableError:
                continue  # `confirm` tries again, and says so where it cannot either


def _version(e_tag: str | None, version: str | None) -> "UpdateVersion":
    """Name a version as conditional writes want it: S3 and Azure by ETag, Google by generation."""
    named: UpdateVersion = {}
    if e_tag is not None:
        named["e_tag"] = e_tag
    if version is not None:
        named["version"] = version
    return named
