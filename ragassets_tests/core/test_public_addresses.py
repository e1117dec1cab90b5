"""Which addresses of the network an untrusted URL may lead to."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragassets.core.public_addresses import AllowedAddresses, is_public

PRIVATE = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
    "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32",
)  # fmt: skip
"""Source: RFC 6890 and the IANA registry of special-purpose addresses."""

PRIVATE_6 = ("::/128", "::1/128", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32")

in_private_4 = st.sampled_from(PRIVATE).flatmap(
    lambda text: st.integers(
        int(ip_network(text).network_address), int(ip_network(text).broadcast_address)
    ).map(IPv4Address)
)


@given(address=in_private_4)
def test_no_special_address_is_public_in_whichever_form_it_comes(address: IPv4Address) -> None:
    """IPv6 has five ways to say an IPv4 address; all of them end at the same machine."""
    number = int(address)
    forms = [
        address,
        IPv6Address((0xFFFF << 32) + number),  # mapped
        IPv6Address(number),  # compatible
        IPv6Address((0x64FF9B << 96) + number),  # NAT64
        IPv6Address((0x2002 << 112) + (number << 80) + 1),  # 6to4
        IPv6Address((0x20010000 << 96) + (number ^ 0xFFFFFFFF)),  # Teredo: the client
        IPv6Address((0x20010000 << 96) + (number << 64)),  # Teredo: the server
    ]
    assert [form for form in forms if is_public(form)] == []
    assert not any(AllowedAddresses().allows("docs.example.com", form) for form in forms)


@given(
    address=st.sampled_from(PRIVATE_6).flatmap(
        lambda text: st.integers(
            int(ip_network(text).network_address), int(ip_network(text).broadcast_address)
        ).map(IPv6Address)
    )
)
def test_no_special_address_of_ipv6_is_public(address: IPv6Address) -> None:
    """Loopback, unique local, link-local, site-local, multicast, documentation."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8",
        "93.184.216.34",
        "1.1.1.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
    ],
)
def test_the_internet_is_public(text: str) -> None:
    """Also behind NAT64, which is how networks without IPv4 reach the rest."""
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "::ffff:a9fe:a9fe"],
)
def test_metadata_of_clouds_is_never_public_and_a_host_name_does_not_allow_it(text: str) -> None:
    """They hand out credentials to whoever asks from the machine."""
    address = ip_address(text)
    assert not is_public(address)
    assert not AllowedAddresses.parse(["docs.intra"]).allows("docs.intra", address)


def test_hosts_and_networks_can_be_allowed() -> None:
    """A name allows what it leads to, a network everything in it under any name."""
    by_host = AllowedAddresses.parse(["Docs.Intra"])
    assert by_host.allows("docs.intra.", ip_address("10.1.2.3"))
    assert not by_host.allows("other.intra", ip_address("10.1.2.3"))
    by_network = AllowedAddresses.parse(["10.1.0.0/16", "::1"])
    assert by_network.allows("any.example", ip_address("10.1.2.3"))
    assert by_network.allows("any.example", ip_address("::ffff:10.1.2.3"))
    assert by_network.allows("any.example", ip_address("::1"))
    assert not by_network.allows("any.example", ip_address("10.2.0.1"))
