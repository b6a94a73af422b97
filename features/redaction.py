"""Secrets in URLs, and text without them: what is written down or said goes through `redacted`.

https://user:password@host/x    → https://host/x         what stands before @ is left out: the URL stays usable
s3://KEY:SECRET@bucket/x        → s3://bucket/x          also where SECRET has slashes
https://host/x?token=abc&n=1    → https://host/x?token=***&n=1
hdfs://user@host, abfss://container@account    as they are: a name, not a secret
"""

from __future__ import annotations

import logging
import re
from typing import Annotated

from pydantic import PlainSerializer

HIDDEN = "***"

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>`]+")
_AUTHORITY = re.compile(r"[^/?#]*")
_PORT = re.compile(r"\d*")
_SECRET_VALUE = re.compile(
    r"([?&;#][^=&;#]*(?:token|secret|passw|pwd|signature|credential|api_?key|access_?key|\bsig)[^=&;#]*=)[^&;#]*",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text, its URLs without passwords, keys and tokens. A URL without any comes back as it is."""
    return _URL.sub(lambda found: _redacted_url(found.group()), text)


def has_secret(url: str) -> bool:
    """Whether a URL must not be written down."""
    return redacted(url) != url


def _redacted_url(url: str) -> str:
    scheme, rest = url.split("://", 1)
    return f"{scheme}://" + _SECRET_VALUE.sub(rf"\g<1>{HIDDEN}", rest[_credentials(scheme, rest) :])


def _credentials(scheme: str, rest: str) -> int:
    """How many characters after :// are a user with a password, or a token."""
    found = _AUTHORITY.match(rest)
    authority = found.group() if found else ""
    who, at, _ = authority.rpartition("@")
    if at:
        return len(who) + 1 if ":" in who or scheme.lower() in ("http", "https") else 0
    _, colon, port = authority.partition(":")
    if colon and not _PORT.fullmatch(port) and "@" in rest:  # host:port is followed by digits, a password by anything
        return rest.index("@") + 1
    return 0


class RedactedFormatter(logging.Formatter):
    """Log lines and tracebacks without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        return redacted(super().format(record))


SecretUrl = Annotated[str, PlainSerializer(redacted, return_type=str)]
"""A URL that may hold a secret: pydantic writes it without."""
