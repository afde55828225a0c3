"""What every answer tells a browser, whichever way it is made: to trust nothing in it more than is needed."""

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
"""For what says nothing of its own; pages have a Content-Security-Policy that lets their own files in."""


def secured(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Add what an answer's headers don't say themselves."""
    said = {name for name, _ in headers}
    return [*headers, *(header for header in SECURITY_HEADERS if header[0] not in said)]
