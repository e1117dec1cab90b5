"""What sitemaps and pages say, and what hostile ones cannot do."""

import gzip

import pytest

from ragassets.adapters.sources.web.page_links import canonical_in_header, read_links
from ragassets.adapters.sources.web.sitemaps import read_sitemap


class TestSitemaps:
    def test_pages_come_with_their_lastmod(self) -> None:
        """In the namespace of the protocol or none; what else an entry says is left alone."""
        found = read_sitemap(
            b'\n<?xml version="1.0"?><!-- made by hand -->'
            b'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'
            b' xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">'
            b"<url><loc> https://docs.example.com/a?x=1&amp;y=2 </loc><lastmod>2026-01-02</lastmod>"
            b"<image:image><image:loc>https://docs.example.com/a.png</image:loc></image:image></url>"
            b"<url><loc>https://docs.example.com/b</loc></url><url/></urlset>"
        )
        assert found.pages == [
            ("https://docs.example.com/a?x=1&y=2", "2026-01-02"),
            ("https://docs.example.com/b", ""),
        ]
        assert (found.sitemaps, found.problem) == ([], "")

    def test_an_index_names_sitemaps(self) -> None:
        """Packed or not."""
        text = b"<sitemapindex><sitemap><loc>https://x.example/1.xml</loc></sitemap></sitemapindex>"
        assert read_sitemap(text).sitemaps == ["https://x.example/1.xml"]
        assert read_sitemap(gzip.compress(text)).sitemaps == ["https://x.example/1.xml"]

    def test_a_list_of_addresses_is_a_sitemap(self) -> None:
        """The protocol's third format."""
        found = read_sitemap(b"\xef\xbb\xbfhttps://x.example/1\r\n\r\nhttps://x.example/2\n")
        assert found.pages == [("https://x.example/1", ""), ("https://x.example/2", "")]

    def test_entities_neither_explode_nor_read_files(self) -> None:
        """A billion laughs in a kilobyte, and the password file."""
        levels = "".join(
            f'<!ENTITY e{number} "{f"&e{number - 1};" * 10}">' for number in range(1, 10)
        )
        bomb = f'<!DOCTYPE x [<!ENTITY e0 "ha">{levels}]><urlset><url><loc>https://x.example/&e9;'
        found = read_sitemap(f"{bomb}</loc></url></urlset>".encode())
        assert sum(len(url) for url, _ in found.pages) < 100
        outside = '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]>'
        found = read_sitemap(f"{outside}<urlset><url><loc>&f;</loc></url></urlset>".encode())
        assert found.pages == []

    def test_a_gzip_bomb_stays_small(self) -> None:
        """50 MB are the protocol's limit."""
        found = read_sitemap(gzip.compress(b"\0" * 80_000_000))
        assert found.pages == []
        assert "52,428,800" in found.problem

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (b"<urlset><url><loc>https://x.example/1</loc></url><url>", "is no whole XML"),
            (b"<html><body>Not found</body></html>", "is XML, but no sitemap: <html>"),
            (b"nothing", "is neither XML nor a list of addresses"),
            (gzip.compress(b"<urlset></urlset>")[:-9], "is a gzip file that is cut short"),
            (b"\x1f\x8b\x08\xff\xff", "gzip"),
        ],
        ids=["xml", "html", "text", "gzip", "header"],  # compressed data holds the time
    )
    def test_half_a_sitemap_says_so(self, data: bytes, problem: str) -> None:
        """Nothing may be deleted because of it."""
        assert problem in read_sitemap(data).problem


class TestPages:
    def test_links_are_those_that_a_reader_could_follow(self) -> None:
        """With the base that they count from; no anchors within the page."""
        found = read_links(
            b'<base href="/docs/"><a href="a">x</a><A HREF=" b ">x</A><a href="#here">x</a>'
            b'<map><area href="c"></map><a name="x">x</a><!-- <a href="hidden">x</a> -->'
        )
        assert (found.links, found.base, found.canonical) == (["a", "b", "c"], "/docs/", "")

    def test_the_canonical_address_is_read_from_page_and_header(self) -> None:
        """Whatever else the same element or header says."""
        found = read_links(
            b'<link rel="alternate canonical" href="/x"><link rel=canonical href=/y>'
        )
        assert found.canonical == "/x"
        header = '<https://x.example/s>; rel="shortlink", </page>; rel="canonical"'
        assert canonical_in_header(header) == "/page"
        assert canonical_in_header("<x>; rel=next") == ""

    def test_a_page_nested_without_end_is_not_read(self) -> None:
        """Building its tree would take minutes."""
        assert read_links(b"<div>" * 200_000 + b'<a href="x">').links == []
