"""Where a page ended, as an opaque and signed text: the next page goes on from there, whatever was added meanwhile."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from itsdangerous import BadData, URLSafeSerializer

from infra.errors import Malformed
from infra.keys import oldest_first


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row's sort key, and the instant that the pages are priced at where the order needs one."""

    key: tuple[Any, ...]
    at: datetime | None = None


def digest(filters: Mapping[str, Any]) -> str:
    """Name the filters that a cursor belongs to."""
    canonical = json.dumps(filters, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _serializer(key: str) -> URLSafeSerializer:
    return URLSafeSerializer(oldest_first(key), salt="cursor")


def write(cursor: Cursor, filters: Mapping[str, Any], key: str) -> str:
    """Sign a cursor for the page after this one."""
    at = cursor.at and cursor.at.isoformat()
    text: str = _serializer(key).dumps([digest(filters), at, *cursor.key])
    return text


def read(text: str, filters: Mapping[str, Any], key: str) -> Cursor:
    """Read a cursor; one that isn't ours, or belongs to other filters, raises Malformed."""
    try:
        of_filters, at, *last = _serializer(key).loads(text)
    except (BadData, ValueError):
        raise Malformed("The cursor is not one of ours") from None
    if of_filters != digest(filters):
        raise Malformed("The cursor belongs to other filters")
    return Cursor(tuple(last), datetime.fromisoformat(at) if at else None)
