"""Which tariff a parcel announced now falls under."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from web.localization import instant


def in_force(tariffs: Sequence[dict[str, Any]], now: datetime) -> dict[str, Any] | None:
    """Give the last one, of those in the order of their beginnings, that has begun."""
    begun = [tariff for tariff in tariffs if instant(tariff["valid_from"]) <= now]
    return begun[-1] if begun else None
