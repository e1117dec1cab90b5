"""Personal data taken out of text, where a source asks for it.

Only kinds that can be found with high precision and no model are offered. Names, addresses and
account numbers are not: a redaction that misses half of them would promise what it does not keep.
"""

import re
from collections.abc import Sequence

import phonenumbers

from ragassets.core.settings import RedactionKind

EMAIL_MARK = "[EMAIL]"
PHONE_MARK = "[PHONE]"

# A local part of at most 64 characters, then two or more domain labels whose last one is letters
# (`react@18.2.0` is a package version). The look-behind keeps the scan of long words linear.
# Source: RFC 5321 section 4.5.3.1 (lengths), RFC 6531 (letters of any script).
_EMAIL = re.compile(
    r"(?<![\w.%+'-])[\w%+'-](?:[\w.%+'-]{0,62}[\w%+-])?"
    r"@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w-])"
)


def redact(
    text: str, kinds: Sequence[RedactionKind], *, phone_region: str | None = None
) -> tuple[str, dict[str, int]]:
    """Replace personal data by a mark that names its kind, and count what was replaced.

    Args:
        text: the text to redact.
        kinds: what to replace.
        phone_region: ISO 3166 code of the country whose numbers are written without a country code
            (`US`, `DE`). None finds only numbers that start with `+`.

    Returns:
        The text, and the number of replacements per kind (kinds without one are absent).
    """
    counts: dict[str, int] = {}
    if "email" in kinds and "@" in text:
        text, n_emails = _EMAIL.subn(EMAIL_MARK, text)
        counts["email"] = n_emails
    if "phone" in kinds:
        text, n_phones = _redact_phones(text, phone_region)
        counts["phone"] = n_phones
    return text, {kind: count for kind, count in counts.items() if count}


def is_phone_region(region: str) -> bool:
    """Whether telephone numbers of this ISO 3166 region are known."""
    return region in phonenumbers.SUPPORTED_REGIONS


def _redact_phones(text: str, region: str | None) -> tuple[str, int]:
    if region is None and "+" not in text and "\uff0b" not in text:
        return text, 0
    # By default the matcher gives up after 65,535 candidates that are no number, which a long table
    # of figures reaches: the numbers behind it would then stay readable.
    matcher = phonenumbers.PhoneNumberMatcher(text, region, max_tries=len(text) + 1)
    parts: list[str] = []
    position = count = 0
    for match in matcher:
        parts += [text[position : match.start], PHONE_MARK]
        position, count = match.end, count + 1
    return "".join([*parts, text[position:]]), count
