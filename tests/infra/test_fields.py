"""The bounds of every kind of field."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from infra.fields import Amount, Guide, Instant, Message, Name, OptionalLine, OtherCode, PositionCode, phone_number


@pytest.mark.parametrize(
    "typed",
    ["3001234567", "+57 300 123 4567", "573001234567", "(300) 123-4567", "300.123.4567", "+573001234567"],
)
def test_one_phone_however_it_is_typed(typed: str) -> None:
    """The phone is a customer's natural key, so every spelling of one number is one number."""
    assert phone_number(typed) == "+573001234567"


def test_a_fixed_line_and_a_foreign_phone() -> None:
    """Ten digits that start with 6 are Colombian too; other countries keep their own code."""
    assert phone_number("6012345678") == "+576012345678"
    assert phone_number("+34 612 345 678") == "+34612345678"


@pytest.mark.parametrize("typed", ["612345", "4001234567", "+57 300 123", "abc", "", "+", "٣٠٠١٢٣٤٥٦٧", "3001234567x1"])
def test_what_is_no_phone_is_refused(typed: str) -> None:
    """A number that no telephone has is refused, not stored."""
    with pytest.raises(ValueError, match="is not a phone number"):
        phone_number(typed)


@given(st.text())
def test_any_text_is_a_phone_or_refused(typed: str) -> None:
    """Whatever is typed either becomes E.164 or a ValueError, nothing else."""
    try:
        number = phone_number(typed)
    except ValueError:
        return
    assert number.startswith("+")
    assert number[1:].isascii()
    assert phone_number(number) == number


def test_a_guide_is_trimmed_and_upper_case() -> None:
    """Guides are trimmed, in upper case, and keep their dashes for show."""
    assert TypeAdapter(Guide).validate_python("  1z-999aa ") == "1Z-999AA"


@pytest.mark.parametrize("guide", ["1234", "-----", "A" * 51, "ABC 123", "GUÍA-123", "ABC\x00DE", "ABCDE\n1"])
def test_what_is_no_guide_is_refused(guide: str) -> None:
    """5 to 50 letters, digits or dashes, and something besides dashes."""
    with pytest.raises(ValidationError):
        TypeAdapter(Guide).validate_python(guide)


def test_a_bare_date_is_midnight_in_bogota() -> None:
    """`received_from=2026-11-24` begins when the day begins at the shop."""
    assert TypeAdapter(Instant).validate_python("2026-11-24") == datetime(2026, 11, 24, 5, tzinfo=UTC)


def test_an_instant_is_written_in_utc_with_six_decimals() -> None:
    """Both interfaces write instants alike, whatever offset came in."""
    instants = TypeAdapter(Instant)
    assert (
        instants.dump_python(instants.validate_python("2026-11-24T10:04:05.5-05:00")) == "2026-11-24T15:04:05.500000Z"
    )


@pytest.mark.parametrize(
    "text", ["2026-11-24T10:00:00", "1764000000", 1764000000, "2026-13-01", "0001-01-01", "9999-12-31", ""]
)
def test_what_is_no_instant_is_refused(text: object) -> None:
    """A naive time, a number, or a year outside the calendar of the shop is 422."""
    with pytest.raises((ValidationError, ValueError)):
        TypeAdapter(Instant).validate_python(text)


@pytest.mark.parametrize("text", ["a\x00b", "\ud800a", "x", "n" * 101, "two\nlines"])
def test_a_name_is_one_printable_line(text: str) -> None:
    """NUL and lone surrogates never reach the database; a name has 2 to 100 characters."""
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(text)


@pytest.mark.parametrize("amount", [-1, 2**63, 1.5, "1500", True])
def test_an_amount_is_whole_pesos(amount: object) -> None:
    """Money is a JSON integer, not negative, never guessed from text."""
    with pytest.raises(ValidationError):
        TypeAdapter(Amount).validate_python(amount)


def test_a_message_trims_and_refuses_what_it_does_not_know() -> None:
    """Unknown members are refused, so that a typing error in a field's name is never ignored."""

    class Hello(Message):
        name: Name
        note: OptionalLine = None
        code: OtherCode = "abc"
        position: PositionCode = "00"

    hello = Hello.model_validate({"name": "  Ana  ", "note": "   ", "position": "a-001"})
    assert (hello.name, hello.note, hello.position) == ("Ana", None, "A-001")
    with pytest.raises(ValidationError):
        Hello.model_validate({"name": "Ana", "nmae": "x"})
