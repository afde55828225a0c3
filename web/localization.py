"""The pages' languages: Spanish unless English is asked for, with money, dates and phones as the shop writes them."""

import functools
import gettext
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import phonenumbers
from babel.dates import format_datetime, format_timedelta
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from fastapi import Request

from infra.clock import BOGOTA

LANGUAGES = {"es": "Español", "en": "English"}
DEFAULT = "es"
COOKIE = "paqueteria_language"
REGIONS = {"es": "es_CO", "en": "en"}
IN_FULL = {"es": "EEEE d 'de' MMMM 'de' y, HH:mm", "en": "EEEE, d MMMM y, HH:mm"}
CATALOGUES = Path(__file__).parent / "locale"

COLOMBIA = 57

THRESHOLD = 1.2
"""How many of a unit make it the one to tell: 71 minutes, but 1 hour from 72 on."""


def N_(text: str) -> str:  # noqa: N802 (the name that gettext's tools look for)
    """Mark a sentence for the catalogue where it isn't shown yet."""
    return text


def language_of(request: Request) -> str:
    """Tell in which language to answer: what the address asks for, else what was chosen before, else Spanish."""
    for wanted in (request.query_params.get("lang"), request.cookies.get(COOKIE)):
        if wanted in LANGUAGES:
            return wanted
    return DEFAULT


@functools.cache
def translations(language: str) -> gettext.NullTranslations:
    """Give a language's catalogue; the sentences in the code are English, which has none."""
    path = CATALOGUES / language / "LC_MESSAGES" / "messages.po"
    if not path.exists():
        return gettext.NullTranslations()
    compiled = io.BytesIO()
    with path.open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def pesos(amount: int) -> str:
    """Write an amount as the shop does: `$1.500`, `-$1.500`."""
    return f"{'-' if amount < 0 else ''}${abs(amount):,}".replace(",", ".")


def number(value: int, language: str) -> str:
    """Write a count with the language's separator of thousands."""
    return f"{value:,}" if language == "en" else f"{value:,}".replace(",", ".")


@functools.lru_cache(4096)
def phone(value: str | None) -> str:
    """Write a stored phone as people say it: `300 123 4567`, others with their country code."""
    if not value:
        return ""
    parsed = phonenumbers.parse(value)
    national = parsed.country_code == COLOMBIA
    style = phonenumbers.PhoneNumberFormat.NATIONAL if national else phonenumbers.PhoneNumberFormat.INTERNATIONAL
    return phonenumbers.format_number(parsed, style)


def instant(text: str) -> datetime:
    """Read an instant of one of the service's own answers."""
    return datetime.fromisoformat(text)


def exact(at: datetime, language: str) -> str:
    """Write an instant in full, by Bogota's clock."""
    return _written(at, IN_FULL[language], language)


def day(at: datetime, language: str) -> str:
    """Write a day by its name and date, without its year."""
    return _written(at, "EEE d MMM", language)


def short(at: datetime, now: datetime, language: str) -> str:
    """Write an instant of today by its time, another by its day, one of another year with that."""
    at, now = at.astimezone(BOGOTA), now.astimezone(BOGOTA)
    if at.date() == now.date():
        return _written(at, "HH:mm", language)
    pattern = "d MMM, HH:mm" if at.year == now.year else "d MMM y"
    return _written(at, pattern, language)


def _written(at: datetime, pattern: str, language: str) -> str:
    """Write an instant by Bogota's clock; no pattern tells more than its minute."""
    return _minute_written(at.astimezone(BOGOTA).replace(second=0, microsecond=0), pattern, language)


@functools.lru_cache(8192)
def _minute_written(at: datetime, pattern: str, language: str) -> str:
    """A page tells many instants, and tells them again with each change: each is written once."""
    return format_datetime(at, pattern, locale=REGIONS[language])


def ago(at: datetime, now: datetime, language: str) -> str:
    """Tell how long ago an instant is, in one unit, as ago.js does."""
    span = max(now.astimezone(UTC) - at.astimezone(UTC), timedelta(0))
    told = functools.partial(format_timedelta, granularity="minute", threshold=THRESHOLD, add_direction=True)
    return told(-span, locale=REGIONS[language])
