"""The kinds of field that requests and answers are made of, each with its bounds."""

import functools
import re
from datetime import UTC, date, datetime, time
from typing import Annotated, Any

import phonenumbers
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from infra.clock import BOGOTA

LARGEST_INTEGER = 2**63 - 1
LARGEST_AMOUNT = 10**12
"""Pesos; no parcel shop takes more, and sums of a million of them still fit 63 bits."""


class Message(BaseModel):
    """A request's body: unknown members are refused, text is trimmed, and nothing is guessed from another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True, strict=True)


def _printable(text: str) -> str:
    if not all(character.isprintable() or character in "\n\t" for character in text):
        message = "may hold printable characters only"
        raise ValueError(message)
    return text


def _one_line(text: str) -> str:
    if not text.isprintable():
        message = "may hold printable characters only, on one line"
        raise ValueError(message)
    return text


def _absent_if_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _guide(text: str) -> str:
    guide = text.strip().upper()
    if not re.fullmatch(r"[A-Z0-9-]{5,50}", guide) or not guide.strip("-"):
        message = "must be 5 to 50 letters, digits or dashes"
        raise ValueError(message)
    return guide


@functools.lru_cache(maxsize=4096)
def phone_number(text: str) -> str:
    """Write a phone number as E.164; a bare Colombian one may leave out its +57. Raises ValueError."""
    bare = re.sub(r"[ \-.()]", "", text)
    if re.fullmatch(r"[36][0-9]{9}", bare):
        bare = f"+57{bare}"
    elif re.fullmatch(r"57[36][0-9]{9}", bare):
        bare = f"+{bare}"
    try:
        if not re.fullmatch(r"\+[0-9]{6,15}", bare):
            raise ValueError
        number = phonenumbers.parse(bare)
        if not phonenumbers.is_valid_number(number):
            raise ValueError
    except (phonenumbers.NumberParseException, ValueError):
        message = "is not a phone number; outside Colombia it needs its + and country code"
        raise ValueError(message) from None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _instant_text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _in_range(at: datetime) -> datetime:
    # PostgreSQL and Python both hold these years, and a shift of a time zone stays inside.
    if not 1900 <= at.year <= 9000:  # noqa: PLR2004
        message = "must lie between the years 1900 and 9000"
        raise ValueError(message)
    return at.astimezone(UTC)


def _from_date(value: object) -> object:
    """Take a bare date as midnight in Bogota, and text as an ISO 8601 instant (numbers aren't instants)."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        message = "must be text"
        raise ValueError(message)  # noqa: TRY004 (pydantic reports ValueError as a field's error)
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        return datetime.combine(date.fromisoformat(value), time.min, BOGOTA)
    if not re.match(r"\d{4}-\d{2}-\d{2}[T ]", value):
        message = "must be an instant with its offset, or a date"
        raise ValueError(message)
    return value


Name = Annotated[str, StringConstraints(min_length=2, max_length=100), AfterValidator(_one_line)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=100), AfterValidator(_one_line)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=1000), AfterValidator(_printable)]
OptionalLine = Annotated[Line | None, BeforeValidator(_absent_if_blank)]
OptionalText = Annotated[Text | None, BeforeValidator(_absent_if_blank)]
Guide = Annotated[str, StringConstraints(max_length=200), AfterValidator(_guide), Field(examples=["1Z-999AA-10123"])]
OtherCode = Annotated[str, StringConstraints(min_length=3, max_length=100), AfterValidator(_one_line)]
OtherCodes = Annotated[list[OtherCode], Field(max_length=10)]
Phone = Annotated[str, StringConstraints(max_length=40), AfterValidator(phone_number), Field(examples=["300 123 4567"])]
OptionalPhone = Annotated[Phone | None, BeforeValidator(_absent_if_blank)]
SiteCode = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{2,32}$"), Field(examples=["PRINCIPAL"])]
PositionCode = Annotated[
    str,
    StringConstraints(min_length=1, max_length=32, to_upper=True),
    AfterValidator(_one_line),
    Field(examples=["07"]),
]
OptionalPosition = Annotated[PositionCode | None, BeforeValidator(_absent_if_blank)]
Amount = Annotated[int, Field(strict=True, ge=0, le=LARGEST_AMOUNT, examples=[1500])]
Pesos = Annotated[int, Field(examples=[1500])]

Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_from_date),
    AfterValidator(_in_range),
    PlainSerializer(_instant_text),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-24T15:04:05.123456Z"]}),
]
"""An instant: given with an offset or as a bare date, kept in UTC, written with six decimals and Z."""


def instant_text(at: datetime) -> str:
    """Write an instant as the contract does."""
    return _instant_text(at)


def errors_by_field(errors: list[Any]) -> dict[str, list[str]]:
    """Sort pydantic's errors by the field they belong to, `items.0.guide_number` for one inside."""
    fields: dict[str, list[str]] = {}
    for error in errors:
        path = [str(part) for part in error["loc"] if part not in ("body", "query", "path", "header")]
        message = error["msg"].removeprefix("Value error, ")
        fields.setdefault(".".join(path) or "body", []).append(message)
    return fields
