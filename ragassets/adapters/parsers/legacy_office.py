"""DOC and PPT: LibreOffice turns them into DOCX and PPTX, which have parsers of their own."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from ragassets.adapters.parsers.docx import DocxParser
from ragassets.adapters.parsers.pptx import PptxParser
from ragassets.core import media_types
from ragassets.core.parsing import ParsedDocument
from ragassets.errors import (
    EXHAUSTED,
    CorruptDocumentError,
    MissingConverterError,
    SystemResourceError,
)

_TARGET_OF_TYPE = {media_types.DOC: media_types.DOCX, media_types.PPT: media_types.PPTX}
_SUFFIX_OF_TYPE = {
    media_types.DOC: ".doc",
    media_types.PPT: ".ppt",
    media_types.DOCX: ".docx",
    media_types.PPTX: ".pptx",
}
_PROGRAMS = ("soffice", "libreoffice")
_TIMEOUT_SECONDS = 120


class LegacyOfficeParser:
    """Reads the binary formats of Word and PowerPoint 97 to 2003."""

    name = "legacy_office"
    version = "1"
    media_types = frozenset(_TARGET_OF_TYPE)

    def parse(self, data: bytes, *, uri: str, media_type: str) -> ParsedDocument:
        """Elements of the converted document.

        Raises:
            MissingConverterError: LibreOffice is not installed.
            CorruptDocumentError: LibreOffice makes nothing of the bytes, or takes too long.
            SystemResourceError: LibreOffice is there and cannot be started.
        """
        target = _TARGET_OF_TYPE[media_type]
        converted = _convert(data, media_type, target, uri)
        parser = DocxParser() if target == media_types.DOCX else PptxParser()
        document = parser.parse(converted, uri=uri, media_type=target)
        return ParsedDocument(
            elements=document.elements,
            media_type=media_type,
            parser=self.name,
            n_pages=document.n_pages,
            title=document.title,
            metadata=document.metadata,
        )


def find_libreoffice() -> str | None:
    """The path of the installed program."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


def _convert(data: bytes, media_type: str, target: str, uri: str) -> bytes:
    program = find_libreoffice()
    if program is None:
        raise MissingConverterError(
            uri=uri, detail=f"{media_type} needs LibreOffice (`soffice` is not on PATH)"
        )
    with tempfile.TemporaryDirectory(prefix="ragassets-office-") as folder:
        source = Path(folder) / f"document{_SUFFIX_OF_TYPE[media_type]}"
        source.write_bytes(data)
        command = [
            program, "--headless", "--norestore",
            # A profile of its own: a second LibreOffice on the same profile does nothing.
            f"-env:UserInstallation={(Path(folder) / 'profile').as_uri()}",
            "--convert-to", _SUFFIX_OF_TYPE[target].removeprefix("."), "--outdir", folder,
            str(source),
        ]  # fmt: skip
        _run(command, uri)
        try:
            return source.with_suffix(_SUFFIX_OF_TYPE[target]).read_bytes()
        except FileNotFoundError as error:
            raise CorruptDocumentError(uri=uri, detail="LibreOffice made nothing of it") from error


def _run(command: list[str], uri: str) -> None:
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=_TIMEOUT_SECONDS)
    except subprocess.SubprocessError as error:
        raise CorruptDocumentError(
            uri=uri, detail=f"LibreOffice cannot convert it ({type(error).__name__})"
        ) from error
    except OSError as error:
        if error.errno in EXHAUSTED:
            raise
        raise SystemResourceError(
            resource="LibreOffice",
            detail=f"{command[0]} cannot be started ({error.strerror})",
            fix="Mend its installation or take it off PATH, then run again",
        ) from error
