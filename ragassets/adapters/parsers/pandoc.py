"""EPUB, ODT, RTF, RST and Org: pandoc makes HTML of them, and the HTML parser reads it."""

import subprocess

from ragassets.adapters.parsers.html import parse_html
from ragassets.adapters.parsers.xml_tree import Package
from ragassets.core import media_types
from ragassets.core.parsing import ParsedDocument
from ragassets.core.text_encoding import decode_text
from ragassets.errors import CorruptDocumentError, MissingConverterError

_READER_OF_TYPE = {
    media_types.EPUB: "epub",
    media_types.ODT: "odt",
    media_types.RTF: "rtf",
    media_types.RST: "rst",
    media_types.ORG: "org",
}
_TEXT_TYPES = frozenset({media_types.RST, media_types.ORG})
_ZIP_TYPES = frozenset({media_types.EPUB, media_types.ODT})
_TIMEOUT_SECONDS = 120


class PandocParser:
    """Reads documents through pandoc, which runs sandboxed: it opens no file and no address."""

    name = "pandoc"
    version = "1"
    media_types = frozenset(_READER_OF_TYPE)

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """Elements of the HTML that pandoc makes.

        Raises:
            MissingConverterError: pandoc is not installed.
            CorruptDocumentError: pandoc refuses the bytes or takes too long.
            OversizedDocumentError: The container unpacks to more than any honest one.
        """
        if media_type in _ZIP_TYPES:
            Package(data, uri)  # refuses decompression bombs
        program = find_pandoc()
        if program is None:
            raise MissingConverterError(
                uri=uri, detail="pandoc is not installed (pip install pypandoc-binary)"
            )
        source = decode_text(data).encode() if media_type in _TEXT_TYPES else data
        command = [
            program, "--sandbox", "--quiet", "--wrap=none",
            f"--from={_READER_OF_TYPE[media_type]}", "--to=html",
        ]  # fmt: skip
        try:
            result = subprocess.run(
                command, input=source, capture_output=True, check=True, timeout=_TIMEOUT_SECONDS
            )
        except subprocess.CalledProcessError as error:
            detail = f"pandoc refused it (exit code {error.returncode})"
            raise CorruptDocumentError(uri=uri, detail=detail) from error
        except subprocess.TimeoutExpired as error:
            detail = f"pandoc took longer than {_TIMEOUT_SECONDS} s"
            raise CorruptDocumentError(uri=uri, detail=detail) from error
        return parse_html(
            result.stdout.decode("utf-8", "replace"),
            uri=uri,
            parser=self.name,
            media_type=media_type,
        )


def find_pandoc() -> str | None:
    """The path of the installed program."""
    import pypandoc

    try:
        return str(pypandoc.get_pandoc_path())
    except OSError:
        return None
