"""The section `web` of a source: what it refuses, and what its errors never repeat."""

from pathlib import Path

import pytest
import yaml

from ragassets.config import Config, load_config
from ragassets.errors import ConfigurationError


def load(folder: Path, **source: object) -> Config:
    """The configuration with one source."""
    file = folder / "ragassets.yaml"
    file.write_text(yaml.safe_dump({"sources": {"docs": source}}))
    return load_config(file)


def test_a_site_needs_its_address_alone(tmp_path: Path) -> None:
    web = load(tmp_path, uri="https://docs.example.com/guide").source("docs").web
    assert (web.sitemaps, web.depth, web.robots_name, web.allow_private) == (
        "auto", 2, "ragassets", ()
    )  # fmt: skip
    assert load(tmp_path, uri="https://x.example/", web={"user_agent": "acme/1 (docs)"}).source(
        "docs"
    ).web.robots_name == ("acme")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"uri": "https:///x"}, ["http:// or https:// and a host"]),
        ({"uri": "https://docs.example.com/?page=1"}, ["it must end before `?`"]),
        ({"uri": "https://x.example/", "mirrors": ["https://y.example/"]}, ["a web site has none"]),
        ({"uri": "./documents", "web": {"depth": 3}}, ["only a source of http:// or https://"]),
        ({"uri": "https://x.example/", "web": {"allow_private": ["10.0.0.0/99"]}}, ["10.1.0.0/16"]),
        ({"uri": "https://x.example/", "web": {"allow_private": ["docs intra"]}}, ["leave scheme"]),
        ({"uri": "https://x.example/", "web": {"sitemaps": ["/map.xml"]}}, ["whole addresses"]),
        ({"uri": "https://x.example/", "web": {"headers": {"Host": "y"}}}, ["'Host' is no name"]),
        ({"uri": "https://x.example/", "web": {"user_agent": "\n"}}, ["begin with a name"]),
        ({"uri": "https://x.example/", "web": {"detph": 3}}, ["Did you mean 'depth'"]),
    ],
)
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path, source: dict[str, object], words: list[str]
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, **source)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        {"uri": "https://me:s3cret@docs.example.com/"},
        {"uri": "https://x.example/", "web": {"headers": {"Authorization": "s3cret\n"}}},
        {"uri": "https://x.example/", "web": {"headers": {"Authorization": ["s3cret"]}}},
        {"uri": "https://x.example/", "web": {"headers": {"Bad Name": "s3cret"}}},
    ],
)
def test_no_error_repeats_a_secret(tmp_path: Path, source: dict[str, object]) -> None:
    """Errors are printed and logged."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, **source)
    assert "s3cret" not in str(caught.value)
    config = load(tmp_path, uri="https://x.example/", web={"headers": {"Authorization": "s3cret"}})
    assert "s3cret" not in repr(config)
