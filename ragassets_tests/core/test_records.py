"""Records: from JSON to a document's bytes and back."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ragassets.core.record_settings import ApiConfig, RecordConfig, check_record_source
from ragassets.core.records import (
    SIGNATURE,
    Envelope,
    RecordMapping,
    read_envelope,
    read_time,
    record_uri,
    write_envelope,
)
from ragassets.errors import BrokenRecordError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
ARTICLE = {
    "id": 7,
    "attributes": {
        "headline": "Parking",
        "body": "<p>Visitors park on the roof.</p>",
        "tags": ["cars", "roof"],
        "views": 12,
        "edited": "2026-11-20T10:00:00+02:00",
    },
    "links": {"web": "https://help.acme.test/7"},
    "archived_at": None,
}


def mapping(**keys: object) -> RecordMapping:
    """A mapping with the settings of a test."""
    return RecordMapping(RecordConfig.model_validate(keys))


def test_a_record_becomes_body_title_time_and_metadata() -> None:
    """The whole mapping at once."""
    record = mapping(
        html="attributes.body",
        title="attributes.headline",
        url="links.web",
        updated_at="attributes.edited",
        deleted="archived_at",
        metadata={"tags": "attributes.tags", "views": "attributes.views", "none": "nowhere"},
    ).read(ARTICLE, place="page 1")
    assert (record.record_id, record.is_deleted) == ("7", False)
    assert record.updated_at == datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert read_envelope(record.body) == Envelope(
        body="<p>Visitors park on the roof.</p>",
        body_type="html",
        title="Parking",
        metadata={"tags": "cars, roof", "views": 12, "url": "https://help.acme.test/7"},
    )


def test_without_a_body_the_whole_record_is_searched() -> None:
    """Nothing that was not asked away is lost."""
    record = mapping().read({"id": "a", "b": [1, "two"]}, place="line 1")
    assert read_envelope(record.body).body == '{"b": [1, "two"], "id": "a"}'


def test_a_body_of_several_texts_is_paragraphs() -> None:
    """JMESPath gives lists where several things match."""
    record = mapping(text="parts[].text").read(
        {"id": 1, "parts": [{"text": "One."}, {"text": None}, {"text": "Two."}]}, place=""
    )
    assert read_envelope(record.body).body == "One.\n\nTwo."


@pytest.mark.parametrize("flag", [True, 1, "2026-11-20", "yes"])
def test_a_flag_says_that_the_document_is_gone(flag: object) -> None:
    """Also a time of deletion does."""
    assert mapping(deleted="gone").read({"id": 1, "gone": flag}, place="").is_deleted


@pytest.mark.parametrize("flag", [None, False, 0, "", "false", "No"])
def test_a_flag_that_is_not_set_says_nothing(flag: object) -> None:
    """A text `false` is false."""
    assert not mapping(deleted="gone").read({"id": 1, "gone": flag}, place="").is_deleted


@pytest.mark.parametrize(
    "value", [None, 3, [], "text", {}, {"id": None}, {"id": ""}, {"id": True}, {"id": 1.5}]
)
def test_a_record_without_identity_is_told_with_its_place(value: object) -> None:
    """It could not be told from the others in the next listing."""
    with pytest.raises(BrokenRecordError, match=r"dump\.jsonl, line 3"):
        mapping().read(value, place="dump.jsonl, line 3")


@given(st.text(min_size=1), st.text(min_size=1))
def test_identities_and_uris_are_the_same_exactly_when_they_are(one: str, other: str) -> None:
    """No two records share a document."""
    uris = [record_uri("https://a/b", name) for name in (one, other)]
    assert (uris[0] == uris[1]) == (one == other)
    assert uris[0].isascii()
    assert " " not in uris[0]


@given(st.dictionaries(st.text(), JSON))
def test_any_object_is_read_or_told_and_the_same_one_gives_the_same_bytes(
    value: dict[str, object],
) -> None:
    """The order of the keys is no change; nothing else is raised."""
    read = mapping(text="body", title="title", metadata={"a": "a", "b": "length(b)"}).read
    whole = mapping().read
    for reader in (read, whole):
        one = reader({**value, "id": 1}, place="")
        other = reader(dict(reversed({**value, "id": 1}.items())), place="")
        assert one == other
        assert one.body.startswith(SIGNATURE)
        read_envelope(one.body)


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.integers() | st.booleans()))
def test_an_envelope_is_read_as_it_was_written(
    body: str, title: str, metadata: dict[str, str | int | bool]
) -> None:
    """Lone surrogates and all."""
    envelope = Envelope(body + "\ud800", "markdown", title, metadata)
    assert read_envelope(write_envelope(envelope)) == envelope


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-11-20T10:00:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        (1_795_341_600, datetime(2026, 11, 22, 10, tzinfo=UTC)),
        (1_795_341_600_000, datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("yesterday", None),
        (None, None),
        (True, None),
        (float("inf"), None),
    ],
)
def test_times_come_in_several_forms(value: object, moment: datetime | None) -> None:
    """What cannot be read is no time, and no error."""
    assert read_time(value) == moment


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "a["}, "is no JMESPath expression"),
        ({"text": "a", "html": "b"}, "a document has one body"),
        ({"metadata": {"acl": "groups"}}, "who may read"),
        ({"ids": "a"}, "Extra inputs"),
    ],
)
def test_wrong_settings_say_what_is_wrong(settings: dict[str, object], message: str) -> None:
    """Before anything is read."""
    with pytest.raises(ValidationError, match=message):
        RecordConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("uri", "api", "records", "message"),
    [
        ("s3://b/x", {}, None, "api: only rest"),
        ("rest+https://u:p@host/x", {}, {}, "holds a name or password"),
        ("rest+https://host/x?key=1", {}, {}, "belongs into api.parameters"),
        ("rest+https:///x", {}, {}, "is rest.https://host/path"),
        ("rest+https://host/x", {}, {"format": "jsonl"}, "is for files"),
        ("https://h/t", None, {"format": "jsonl"}, "is for files, APIs and topics"),
        ("kafka://h/t", None, {"format": "jsonl"}, "a message is one record"),
        ("kafka://h/t", None, {"id": "key"}, "kafka.identity says"),
        ("./dumps", None, {}, "records.format: is missing"),
        ("rest+https://host/x", {"since": {"parameter": "s"}}, {}, "needs records.updated_at"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    uri: str, api: dict[str, object] | None, records: dict[str, object] | None, message: str
) -> None:
    """With the key that has to be mended."""
    scheme = uri.split("://", maxsplit=1)[0] if "://" in uri else "file"
    with pytest.raises(ValueError, match=message):
        check_record_source(
            uri,
            scheme,
            None if api is None else ApiConfig.model_validate(api),
            None if records is None else RecordConfig.model_validate(records),
        )
