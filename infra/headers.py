"""What every answer tells a browser, whichever way it is made: to trust nothing in it more than is needed."""

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
"""For what says nothing of its own; pages have a Content-Security-Policy that lets their own files in."""


def secured(headers: Headers) -> Headers:
    """Add what an answer's headers don't say themselves."""
    said = {name for name, _ in headers}
    return [*headers, *(header for header in SECURITY_HEADERS if header[0] not in said)]


def written(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write headers as HTTP/1.1 does, a line each."""
    return b"".join(b"%b: %b\r\n" % header for header in headers)


class Head:
    """An answer's headers, and once more as they are written, made once for very many answers."""

    __slots__ = ("headers", "lines")

    def __init__(self, headers: Headers) -> None:
        self.headers = headers
        self.lines = written(headers)
