"""The settings of sources whose documents are records: JSON APIs, JSON lines, topics of JSON."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

API_SCHEMES = ("rest+https", "rest+http")
FILE_SCHEMES = ("file", "s3", "gs", "az")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _refuse_what_is_no_path(value: str) -> str:
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        jmespath.compile(value)
    except JMESPathError as error:
        message = (
            f"{value!r} is no JMESPath expression such as 'meta.title' ({type(error).__name__})"
        )
        raise ValueError(message) from error
    return value


RecordPath = Annotated[str, Field(min_length=1), AfterValidator(_refuse_what_is_no_path)]
"""Where something stands in a record. Source: https://jmespath.org/specification.html"""

BodyType = Literal["text", "html", "markdown"]


class RecordConfig(_Section):
    """How a JSON record becomes a document."""

    format: Literal["jsonl"] | None = None
    """The source's files are dumps with a record on each line; not of an API."""
    id: RecordPath = "id"
    """Text or a whole number that stays when the record changes."""
    text: RecordPath | None = None
    html: RecordPath | None = None
    markdown: RecordPath | None = None
    """What is searched: text, or a list of texts. Without any of the three it is the whole record,
    as `path: value` lines."""
    title: RecordPath | None = None
    url: RecordPath | None = None
    """Where a person reads it; `url` in the metadata of hits."""
    updated_at: RecordPath | None = None
    """ISO 8601, or seconds or milliseconds since 1970."""
    metadata: Mapping[str, RecordPath] = Field(default_factory=dict[str, str])
    """Name in the metadata of hits, to where the value stands. What the source's own `metadata`
    says goes before it."""
    deleted: RecordPath | None = None
    """Where it is true, the document is gone."""

    @model_validator(mode="after")
    def _check_body_and_names(self) -> Self:
        bodies = [name for name in get_args(BodyType) if getattr(self, name) is not None]
        if len(bodies) > 1:
            message = f"{' and '.join(bodies)}: a document has one body; name one of them"
            raise ValueError(message)
        if "acl" in self.metadata:
            message = "metadata.acl: who may read is said by the source's `acl`, not by its records"
            raise ValueError(message)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What records may add to the metadata of hits."""
        return (*self.metadata, *(() if self.url is None else ("url",)))

    @property
    def body(self) -> tuple[BodyType, str] | None:
        """What kind of text the body is, and where it stands; None for the whole record."""
        for name in get_args(BodyType):
            if (path := getattr(self, name)) is not None:
                return name, path
        return None


class CursorPagination(_Section):
    """Each answer holds what to ask the next one with."""

    kind: Literal["cursor"]
    path: RecordPath
    """Of the cursor in an answer; where there is none, or it is empty, the answer is the last."""
    parameter: str
    """Of the query."""


class PagePagination(_Section):
    """Pages are numbered; the first one without items ends the listing."""

    kind: Literal["page"]
    parameter: str = "page"
    first: int = 1


class OffsetPagination(_Section):
    """Items are numbered; the first answer without items ends the listing."""

    kind: Literal["offset"]
    parameter: str = "offset"
    limit_parameter: str = "limit"
    limit: Annotated[int, Field(ge=1, le=100_000)] = 100


class LinkPagination(_Section):
    """The `Link` header says where the next page is (`rel="next"`). Source: RFC 8288."""

    kind: Literal["link"]


class UrlPagination(_Section):
    """Each answer holds the address of the next one."""

    kind: Literal["url"]
    path: RecordPath


class OnePage(_Section):
    """One answer holds everything."""

    kind: Literal["none"] = "none"


Pagination = Annotated[
    CursorPagination | PagePagination | OffsetPagination | LinkPagination | UrlPagination | OnePage,
    Field(discriminator="kind"),
]


class SinceConfig(_Section):
    """Between whole listings, a sensor asks for what changed only."""

    parameter: str
    """Of the query: gets the time of the newest known record, ISO 8601 in UTC."""
    overlap_seconds: Annotated[int, Field(ge=0, le=604_800)] = 300
    """So much earlier is asked for: clocks differ, and writes may become visible late."""


class ApiConfig(_Section):
    """How a JSON API is asked for its records."""

    items: RecordPath = "@"
    """Of the list of records in an answer; `@` is the answer itself."""
    pagination: Pagination = OnePage()
    parameters: Mapping[str, str | int | float | bool] = Field(default_factory=dict)
    """Of every query."""
    headers: Mapping[str, str] = Field(default_factory=dict[str, str], repr=False)
    """Of every request; secrets as `${VARIABLE}`."""
    since: SinceConfig | None = None
    """Needs `records.updated_at`."""
    max_pages: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """A listing that needs more is incomplete."""
    max_page_bytes: Annotated[int, Field(ge=1)] = 32 * 1024**2
    """A larger answer is not read."""


def check_record_source(
    uri: str, scheme: str, api: ApiConfig | None, records: RecordConfig | None
) -> None:
    """Refuse settings that contradict each other.

    Raises:
        ValueError: They do; pydantic adds where they stand.
    """
    from urllib.parse import urlsplit

    is_api = scheme in API_SCHEMES
    if api is not None and not is_api:
        message = f"api: only rest+https:// and rest+http:// have one, and uri is {uri!r}"
        raise ValueError(message)
    if is_api and urlsplit(uri).username is not None:
        message = "uri: holds a name or password; put it into api.headers, as ${VARIABLE}"
        raise ValueError(message)
    if is_api and (urlsplit(uri).query or urlsplit(uri).fragment or not urlsplit(uri).hostname):
        message = "uri: is rest+https://host/path and no more; a query belongs into api.parameters"
        raise ValueError(message)
    if is_api and records is not None and records.format is not None:
        message = f"records.format: {records.format!r} is for files; an API answers JSON"
        raise ValueError(message)
    if records is not None and scheme == "kafka":
        _check_message_records(records)
    elif records is not None and not is_api and scheme not in FILE_SCHEMES:
        message = f"records: is for files, APIs and topics, and uri is {uri!r}"
        raise ValueError(message)
    elif records is not None and not is_api and records.format is None:
        message = "records.format: is missing; files of records are `jsonl`"
        raise ValueError(message)
    if api and api.since and (records is None or records.updated_at is None):
        message = "api.since: needs records.updated_at, to know since when"
        raise ValueError(message)


def _check_message_records(records: RecordConfig) -> None:
    if records.format is not None:
        message = f"records.format: {records.format!r} is for files; a message is one record"
        raise ValueError(message)
    if "id" in records.model_fields_set:
        message = f"records.id: {records.id!r} names nothing; kafka.identity says what a message is"
        raise ValueError(message)
