"""Keeping secrets out of what is stored."""

from __future__ import annotations

import re

# Nothing here may go back over what it has read: texts are long, and anybody may have written them.
_PATTERNS = (
    # what SQLAlchemy appends to the text of an error
    (re.compile(r"\[parameters: .*", re.DOTALL), "[parameters: ***]"),
    # user and password in a URL
    (re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]*(?=@)"), "***"),
    # the same where the rest was cut off; what looks like a port is one
    (re.compile(r"(?<=://)[^\s/@:]+:(?!\d{1,5}(?:…|$))[^\s/@]*(?=…|$)"), "***"),
    (re.compile(r"\b(Bearer|Basic|Digest)\s+[\w.~+/=-]{6,}", re.IGNORECASE), r"\1 ***"),
    # a name that says it, with what follows it
    (
        re.compile(
            r"((?:passw(?:or)?d|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
            r"|credentials?|authorization|cookie|session[_-]?id)[\w-]{0,40}+[\"']?+\s{0,9}+[:=]\s*+)"
            r"(\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)",
            re.IGNORECASE,
        ),
        r"\1***",
    ),
    # keys that are known by their shape
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), "***"),
    (re.compile(r"\beyJ[\w-]{8,999}+\.[\w-]{8,}(?:\.[\w-]*)?"), "***"),
    (re.compile(r"\b(?:sk|gh[pousr]|xox[a-z])[-_][\w-]{12,}"), "***"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)", re.DOTALL), "***"),
)


def redacted(text: str, longest: int = 500) -> str:
    """The text without what looks like a secret, cut at so many characters.

    It knows the usual shapes: credentials in a URL, `password=...`, bearer tokens, bound parameters of SQLAlchemy,
    well-known kinds of keys. It is a net, and no proof.
    """
    text = text[: longest * 8]  # the patterns need not read a megabyte
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text if len(text) <= longest else text[: longest - 1] + "…"
