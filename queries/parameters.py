"""The kinds of parameter that several queries take."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from infra.fields import Instant, Line, OptionalLine, SiteCode

MOST_WORDS = 12


def words_of(q: str | None) -> list[str]:
    """Split what is searched for into its words, each once."""
    return list(dict.fromkeys((q or "").split()))


def _has_few_words(q: str | None) -> str | None:
    if len(words_of(q)) > MOST_WORDS:
        message = f"may have {MOST_WORDS} words"
        raise ValueError(message)
    return q


def _absent_if_blank(value: object) -> object:
    return None if value == "" else value


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


Code = Annotated[Line, BeforeValidator(_stripped)]
OptionalWords = Annotated[OptionalLine, AfterValidator(_has_few_words)]
OptionalInstant = Annotated[Instant | None, BeforeValidator(_absent_if_blank)]
OptionalSite = Annotated[SiteCode | None, BeforeValidator(_absent_if_blank)]
OptionalCursor = Annotated[
    Annotated[str, Field(max_length=2000)] | None,
    BeforeValidator(_absent_if_blank),
    Field(description="The `next_cursor` of the page before, with the same filters."),
]
