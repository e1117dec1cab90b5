"""Who may write, and until when: a lease in one small object. Values and rules, no I/O, no clock.

A lease is taken by replacing the object that was read, and nothing else: of two that try at once,
one wins. Its holder renews it all the while; one that was not renewed for its time may be taken
over. Each taking has a higher token, so that a holder that was paused finds another's and stops.

Source: Gray and Cheriton, Leases: an efficient fault-tolerant mechanism for distributed file cache
consistency (1989), https://doi.org/10.1145/74851.74870
"""

import dataclasses
import json
from typing import Self, cast


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
    """A process on some machine."""

    host: str
    pid: int
    command: str
    """The program and its first word."""
    since: str
    """When it took the lease, as its own clock says; for people only."""

    def __str__(self) -> str:
        """Say who it is."""
        return f"process {self.pid} on {self.host} ({self.command}) since {self.since}"


@dataclasses.dataclass(frozen=True)
class Lease:
    """What the object says."""

    holder: Holder
    token: int
    """Of this taking; one more than that of the taking before."""
    nonce: str
    """Drawn at this taking: who finds it has written it, though the answer said otherwise."""
    n_renewals: int = 0
    """Each renewal changes the object, and with it what others have to replace."""
    is_released: bool = False

    @classmethod
    def taken_after(cls, found: "Lease | None", holder: Holder, nonce: str) -> Self:
        """The lease of somebody who takes it after what was found, None for nothing."""
        return cls(holder, token=found.token + 1 if found else 1, nonce=nonce)

    def renewed(self) -> "Lease":
        """The same lease, held on to."""
        return dataclasses.replace(self, n_renewals=self.n_renewals + 1)

    def released(self) -> "Lease":
        """The lease after its holder has given it back; its token stays used."""
        return dataclasses.replace(self, is_released=True)

    def to_json(self) -> bytes:
        """The object's bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Lease":
        """Read the object.

        Raises:
            ValueError: it is no lease.
        """
        try:
            values = cast("dict[str, object]", json.loads(content))
            holder = cast("dict[str, object]", values["holder"])
            return cls(
                Holder(
                    host=str(holder["host"]),
                    pid=int(str(holder["pid"])),
                    command=str(holder["command"]),
                    since=str(holder["since"]),
                ),
                token=int(str(values["token"])),
                nonce=str(values["nonce"]),
                n_renewals=int(str(values["n_renewals"])),
                is_released=values["is_released"] is True,
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"no lease: {error}"
            raise ValueError(message) from error
