"""Which addresses of the network an untrusted URL may lead to: public ones, and allowed others.

A URL that somebody else wrote (a link, a redirect, a sitemap) must not make this machine ask its
own network on that person's behalf (server-side request forgery). Names are of no use for that
decision, since their owner says what they resolve to, and when: only the address counts that is
connected to. Source: OWASP, Server-Side Request Forgery Prevention Cheat Sheet.
"""

import dataclasses
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, Azure, Google Cloud and most others
        "169.254.170.2",  # credentials of AWS ECS
        "169.254.170.23",  # credentials of AWS EKS
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # the wire server of Azure; a public address
        "192.0.0.192",  # Oracle Cloud, formerly
        "fd00:ec2::254",  # AWS over IPv6
        "fd00:ec2::23",  # credentials of AWS EKS over IPv6
        "fd20:ce::254",  # Google Cloud over IPv6
    )
)
"""Where clouds hand out credentials to whoever asks from the machine. Source: the providers' own
documentation of their instance metadata services."""

_SHARED = ip_network("100.64.0.0/10")
"""Carrier-grade NAT. Source: RFC 6598."""

_NAT64 = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
"""Source: RFC 6052, section 2.1, and RFC 8215."""

_COMPATIBLE = ip_network("::/96")
"""IPv4-compatible IPv6, deprecated. Source: RFC 4291, section 2.5.5.1."""

_V4_MASK = 0xFFFF_FFFF


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, and no cloud's metadata service.

    An IPv6 address that carries an IPv4 address is as public as that one.
    """
    if address in METADATA or address.is_multicast or address.is_unspecified:
        return False
    if isinstance(address, IPv6Address):
        embedded = _embedded(address)
        if embedded:
            return all(is_public(one) for one in embedded)
        if address.is_site_local:
            return False
    elif address in _SHARED:
        return False
    return address.is_global and not address.is_reserved


def _embedded(address: IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that a packet to this address may end at."""
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in (*_NAT64, _COMPATIBLE)) and int(address) > 1:
        found.append(IPv4Address(int(address) & _V4_MASK))
    return [one for one in found if one is not None]


@dataclasses.dataclass(frozen=True)
class AllowedAddresses:
    """What may be connected to."""

    hosts: frozenset[str] = frozenset()
    """Names that may lead into private networks, but not to link-local addresses, where clouds
    keep credentials."""
    networks: tuple[Network, ...] = ()
    """Networks that may be asked under any name."""

    @classmethod
    def parse(cls, entries: Iterable[str]) -> "AllowedAddresses":
        """From hosts, addresses and networks as a person writes them."""
        hosts: set[str] = set()
        networks: list[Network] = []
        for entry in entries:
            try:
                networks.append(ip_network(entry, strict=False))
            except ValueError:
                hosts.add(entry.lower().rstrip("."))
        return cls(frozenset(hosts), tuple(networks))

    def allows(self, host: str, address: Address) -> bool:
        """Whether to connect to an address that a host name resolved to."""
        if is_public(address):
            return True
        found = (address, *(_embedded(address) if isinstance(address, IPv6Address) else ()))
        if any(one in network for one in found for network in self.networks):
            return True
        if any(one in METADATA or one.is_link_local or one.is_multicast for one in found):
            return False
        return host.lower().rstrip(".") in self.hosts
