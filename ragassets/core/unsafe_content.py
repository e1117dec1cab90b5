"""Text that must not enter a search index: live credentials, and what nobody can see.

High precision only, because a match refuses the whole document: shapes that an issuer publishes,
with enough entropy to be real, and characters that have no honest use in running text. Findings
name a kind and a position, never the text. `valid_documents` in `ragassets.core.versions`
covers this module.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple


class UnsafeFinding(NamedTuple):
    """One piece of unsafe content."""

    kind: str
    start_char: int


MIN_DISTINCT_CHARS = 12
"""A 20-character random token has about 16 distinct characters; `xxxxxxxxxxxx` and `1234567890` in
documentation have fewer."""

MAX_SECRET_SLASHES = 4

_PLACEHOLDER = re.compile(
    r"example|your|placeholder|dummy|sample|redacted|x{6}|0{8}|1234567", re.IGNORECASE
)

# The body is required: documents about keys quote the first line alone. The shortest real one, an
# Ed25519 key in PKCS #8, is 64 characters of Base64.
# Source: RFC 7468 (PEM), RFC 4880 section 6.2 (armor).
_PEM = re.compile(
    r"-----BEGIN ((?:[A-Z0-9]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:\s*[A-Za-z-]{2,20}: [^\n]{0,200}\n)*"
    r"(?P<body>[A-Za-z0-9+/=\s\\]{60,})"
)

# Source: the default rules of gitleaks (MIT, https://github.com/gitleaks/gitleaks) and the issuers'
# pages on token formats. Only rules whose shape alone is proof. Each goes with the literal that it
# needs, since looking for that is a hundred times faster.
_TOKENS: tuple[tuple[str, str, re.Pattern[str]], ...] = (
    ("GitHub token", "gh", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b")),
    ("GitHub token", "github_pat_", re.compile(r"\bgithub_pat_\w{82}\b")),
    ("GitLab token", "glpat-", re.compile(r"\bglpat-[\w-]{20}(?![\w-])")),
    ("Slack token", "xox", re.compile(r"\bxox[abprs]-(?:\d{10,13}-){1,3}[A-Za-z0-9]{24,64}\b")),
    ("OpenAI key", "T3BlbkFJ", re.compile(r"\bsk-[\w-]{20,100}?T3BlbkFJ[\w-]{20,80}")),
    ("Anthropic key", "sk-ant-", re.compile(r"\bsk-ant-[a-z]+\d{2}-[\w-]{80,120}")),
    ("Google API key", "AIza", re.compile(r"\bAIza[\w-]{35}(?![\w-])")),
    ("Stripe live key", "k_live_", re.compile(r"\b[rs]k_live_[A-Za-z0-9]{24,99}\b")),
    ("Hugging Face token", "hf_", re.compile(r"\bhf_[A-Za-z]{34}\b")),
    ("npm token", "npm_", re.compile(r"\bnpm_[A-Za-z0-9]{36}\b")),
    ("PyPI token", "pypi-AgEIcHlwaS5vcmc", re.compile(r"\bpypi-AgEIcHlwaS5vcmc[\w-]{50,}")),
)

# An access key id names an account and is no secret; with its secret close by, the pair is.
_AWS_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b")
_AWS_SECRET = re.compile(r"(?<![A-Za-z0-9/+=_-])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=_-])")
_AWS_NEIGHBOURHOOD_CHARS = 300

# Tag characters are invisible copies of ASCII that language models read; their one honest use is in
# flags of regions. Source: Unicode Technical Standard 51, annex C.
_TAGS = re.compile(
    "\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f|([\U000e0001\U000e0020-\U000e007f]+)"
)

# Right-to-left override before Latin letters shows other words than it stores; legacy Hebrew and
# Arabic text uses it on its own letters. Source: CVE-2021-42574, https://trojansource.codes.
_BIDI_OVERRIDE = re.compile("\u202e[^\n\u202c]{0,40}?[A-Za-z]{3}")

# One variation selector may follow a character; more of them, or a crowd of zero-width characters,
# carry hidden bytes. Source: Butler, "Smuggling arbitrary data through an emoji", 2025.
_HIDDEN_BYTES = re.compile(
    "[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}|[\u200b-\u200d\u2060-\u2064\ufeff]{16,}"
)


def find_unsafe_content(text: str) -> list[UnsafeFinding]:
    """Every credential and every hidden passage found, in order of kind. Linear in the text."""
    findings = list(_private_keys(text))
    findings += _tokens(text)
    findings += _aws_pairs(text)
    return findings if text.isascii() else [*findings, *_hidden_text(text)]


def _private_keys(text: str) -> Iterator[UnsafeFinding]:
    if "PRIVATE KEY" not in text:
        return
    for match in _PEM.finditer(text):
        if len(set(match["body"])) >= MIN_DISTINCT_CHARS and not _PLACEHOLDER.search(match["body"]):
            yield UnsafeFinding(f"PEM {match[1].lower()}", match.start())


def _tokens(text: str) -> Iterator[UnsafeFinding]:
    for kind, literal, pattern in _TOKENS:
        for match in pattern.finditer(text) if literal in text else ():
            if _is_random(match[0]):
                yield UnsafeFinding(kind, match.start())


def _aws_pairs(text: str) -> Iterator[UnsafeFinding]:
    if "AKIA" not in text and "ASIA" not in text:
        return
    for match in _AWS_KEY_ID.finditer(text):
        start = max(0, match.start() - _AWS_NEIGHBOURHOOD_CHARS)
        near = text[start : match.end() + _AWS_NEIGHBOURHOOD_CHARS]
        secrets = (secret[0] for secret in _AWS_SECRET.finditer(near))
        if _is_random(match[0]) and any(_is_aws_secret(secret) for secret in secrets):
            yield UnsafeFinding("AWS access key with its secret", match.start())


def _hidden_text(text: str) -> Iterator[UnsafeFinding]:
    for match in _TAGS.finditer(text):
        if match[1]:
            yield UnsafeFinding("invisible tag characters", match.start())
    for match in _BIDI_OVERRIDE.finditer(text):
        yield UnsafeFinding("text reversed by a direction override", match.start())
    for match in _HIDDEN_BYTES.finditer(text):
        yield UnsafeFinding("bytes hidden in invisible characters", match.start())


def _is_random(token: str) -> bool:
    return len(set(token)) >= MIN_DISTINCT_CHARS and not _PLACEHOLDER.search(token)


def _is_aws_secret(candidate: str) -> bool:
    """Forty characters of mixed case and digits: a path, or a hash in hexadecimal, is neither."""
    # A secret has 0.6 slashes on average, an encoded path many.
    has_all = all(re.search(kind, candidate) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return has_all and candidate.count("/") <= MAX_SECRET_SLASHES and _is_random(candidate)
