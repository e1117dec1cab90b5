"""Safe XML trees for the parsers of XML and of XML-based office formats."""

import importlib
import io
import zipfile
from collections.abc import Iterator
from typing import Any, Protocol, cast

from ragassets.errors import CorruptDocumentError, OversizedDocumentError

# A package whose markup unpacks to more than this is a decompression bomb, or as good as one: a
# real handbook of 870 pages has 6 MB. This much is read in about half a minute, and its tree takes
# about ten times as much memory.
MAX_MARKUP_BYTES = 32 * 1024 * 1024
_MARKUP_SUFFIXES = (".xml", ".rels", ".html", ".xhtml", ".htm")


class XmlNode(Protocol):
    """The part of an lxml element that parsers use."""

    tag: str
    text: str | None
    tail: str | None

    def get(self, key: str) -> str | None:
        """Value of an attribute."""
        ...

    def items(self) -> list[tuple[str, str]]:
        """All attributes."""
        ...

    def iter(self, tag: str | None = None) -> Iterator["XmlNode"]:
        """The node and everything below it, in document order."""
        ...

    def itertext(self) -> Iterator[str]:
        """Texts of the node and everything below it."""
        ...

    def __iter__(self) -> Iterator["XmlNode"]: ...

    def __len__(self) -> int: ...


def parse_xml(data: bytes, *, tolerant: bool = True) -> XmlNode | None:
    """Root of UTF-8 `data`; None where there is no markup in it.

    Mistakes are forgiven where `tolerant`. Entities stay unexpanded, nothing is loaded from
    outside, and nesting and text are limited by libxml2.
    Source: OWASP XML External Entity Prevention Cheat Sheet, section lxml.
    """
    # lxml carries no types; everything that leaves this module has one.
    etree: Any = importlib.import_module("lxml.etree")
    parser = etree.XMLParser(
        recover=tolerant,
        resolve_entities=False,
        load_dtd=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.parse(io.BytesIO(data), parser).getroot()
    except etree.XMLSyntaxError:
        return None
    if root is None:
        return None
    # What is left of an unexpanded entity has a function for a tag; parsers expect strings.
    etree.strip_tags(root, etree.Entity)
    return cast("XmlNode", root)


def local_name(node: XmlNode) -> str:
    """Tag without its namespace: strict and transitional OOXML differ in nothing else."""
    return node.tag.rpartition("}")[2]


def attribute(node: XmlNode, name: str) -> str | None:
    """Value of the attribute with this local name, in whatever namespace."""
    return next((value for key, value in node.items() if key.rpartition("}")[2] == name), None)


def child(node: XmlNode | None, *path: str) -> XmlNode | None:
    """First descendant along a path of local names."""
    for name in path:
        node = next((item for item in children(node) if local_name(item) == name), None)
    return node


def children(node: XmlNode | None) -> Iterator[XmlNode]:
    """Child elements; none where there is no node.

    `node or ()` would not do: an lxml element without children is falsy.
    """
    return iter(()) if node is None else iter(node)


class Package:
    """A zip of XML parts: an office document or an e-book.

    Raises:
        CorruptDocumentError: The bytes are no zip.
        OversizedDocumentError: The parts unpack to more than `MAX_MARKUP_BYTES`.
    """

    def __init__(self, data: bytes, uri: str) -> None:
        try:
            self._archive = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise CorruptDocumentError(
                uri=uri, detail="the container cannot be unzipped"
            ) from error
        self._uri = uri
        # Some writers use backslashes, a leading slash or another case.
        self._members = {
            info.filename.replace("\\", "/").lstrip("/").lower(): info
            for info in self._archive.infolist()
        }
        n_bytes = sum(
            info.file_size
            for name, info in self._members.items()
            if name.endswith(_MARKUP_SUFFIXES)
        )
        if n_bytes > MAX_MARKUP_BYTES:
            detail = f"its text unpacks to {n_bytes} bytes, more than {MAX_MARKUP_BYTES}"
            raise OversizedDocumentError(uri=uri, detail=detail)

    def read(self, name: str) -> XmlNode | None:
        """Root of one part; None where the package has no such part or it holds no markup.

        Raises:
            CorruptDocumentError: The part is damaged.
        """
        member = self._members.get(name.lower().lstrip("/"))
        if member is None:
            return None
        try:
            # Bounded by file_size: zipfile stops there, whatever the stream would go on to give.
            return parse_xml(self._archive.read(member))
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
            raise CorruptDocumentError(uri=self._uri, detail="a part is damaged") from error

    def related(self, part: str, kind: str) -> list[str]:
        """Names of the parts that `part` refers to with relationships of this kind, in order."""
        return [target for target, its_kind in self.relations(part).values() if its_kind == kind]

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Relationship id to (part name, kind) for everything inside the package.

        Source: ECMA-376 part 2, section 9 (relationships).
        """
        folder, _, name = part.rpartition("/")
        root = self.read(f"{folder}/_rels/{name}.rels")
        found: dict[str, tuple[str, str]] = {}
        for node in children(root):
            target = node.get("Target") or ""
            if node.get("TargetMode") == "External":
                continue
            kind = (node.get("Type") or "").rpartition("/")[2]
            found[node.get("Id") or ""] = (_resolve(folder, target), kind)
        return found

    def main_part(self, default: str) -> str:
        """The part that the package is about."""
        return next(iter(self.related("", "officeDocument")), default)

    def core_properties(self) -> dict[str, str]:
        """Title, creator and so on, where given."""
        root = self.read(next(iter(self.related("", "core-properties")), "docProps/core.xml"))
        texts = {local_name(node): (node.text or "").strip() for node in children(root)}
        return {name: text for name, text in texts.items() if text}


def _resolve(folder: str, target: str) -> str:
    if target.startswith("/"):
        return target.lstrip("/")
    pieces = folder.split("/") if folder else []
    for piece in target.split("/"):
        if piece == "..":
            pieces = pieces[:-1]
        elif piece not in ("", "."):
            pieces.append(piece)
    return "/".join(pieces)
