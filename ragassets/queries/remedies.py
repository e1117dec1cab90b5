"""What a person can do about each reason for which a document is not searchable.

A step tries a document again when what it reads has changed: the bytes of a document for parsing,
its modification time or size for fetching, the settings of the step for all of them. To touch a
file makes it fetched again, and parsed again only if its bytes differ.
"""

REMEDIES: dict[str, str] = {
    "broken_record": "The record is no JSON object, or `records.id` finds no identity in it: mend"
    " it at its source, or the mapping. It is read again with the next listing.",
    "changed_during_read": "It was being written; run `ragassets ingest` again. After five such"
    " runs it waits until its modification time or size changes (`touch` it).",
    "corrupt": "Open the file with its own program, save it again, then run `ragassets ingest`; it"
    " is tried again when its bytes have changed.",
    "embedding_refused": "The embedding service does not take this text, most often because it is"
    " too long: lower `max_tokens` of the chunking, or name the model's own tokenizer there.",
    "embedding_service_unavailable": "The embedding service fails on this text while it answers"
    " others. It was tried in five runs; it is tried again when the text or the model has changed.",
    "empty": "There is no text in it. Put text into it, or exclude it under the source.",
    "encrypted": "Store a copy without password or encryption in the source.",
    "garbage": "Its text is not readable words: look at `ragassets show --stage parsed`, and"
    " replace the file if its fonts or its encoding are broken.",
    "invalid_vector": "The embedding model gave no sound vector; check the model with"
    " `ragassets doctor`. It is tried again when the text or the model has changed.",
    "language_not_accepted": "Add the language to `languages.accept` of the source, or set"
    " `otherwise: keep`.",
    "missing_converter": "Install the program that the message names, or store the document in a"
    " newer format. Once LibreOffice and pandoc are both there, `ragassets ingest` tries it again.",
    "missing_raw_bytes": "Run `ragassets ingest` again: it fetches the bytes from the source again."
    " Where that does not help, the source holds other bytes or none: `touch` the file, or restore"
    " the object that the message names.",
    "missing_field": "The document lacks what `validation` requires; add it or relax the rule.",
    "needs_ocr": "It holds pictures of text only. Store a version with a text layer; reading"
    " pictures comes in a later release.",
    "oversized": "It is larger than parsers may read; split it, or exclude it under the source.",
    "repetition": "It repeats itself too much; if that is right, relax `validation`.",
    "source_unavailable": "Let this user read the file, then run `ragassets ingest`. After five"
    " runs in vain it waits until its modification time or size changes (`touch` it).",
    "stage_crashed": "This is a bug in ragassets: report it with the stack trace of"
    " `ragassets dead-letters show`. It is tried again when its content has changed.",
    "stage_failed": "See the message and the stack trace of `ragassets dead-letters show`. It is"
    " tried again when its content or the settings of the step have changed.",
    "too_long": "Split it, or raise the limit under `validation`.",
    "too_short": "There is too little text in it; add some, or lower the limit under `validation`.",
    "unsafe_content": "It holds content that looks like an attack on readers; if it is wanted, set"
    " `validation.unsafe: keep`.",
    "unsupported_format": "Convert it to a supported format, or exclude it under the source.",
}
"""By the `reason` of the error."""

OTHERWISE = (
    "See the message; when the file's content has changed, `ragassets ingest` tries it again."
)


def remedy(reason: str | None) -> str:
    """What to do about a reason; empty without one."""
    return "" if reason is None else REMEDIES.get(reason, OTHERWISE)
