"""A key can be changed without anybody's being signed out: the new one signs, and the old one still counts."""

import uuid
from datetime import UTC, datetime

import pytest

from db.consistency import Token, TokenSigner
from infra.auth import Session, encode_session, verify
from infra.errors import Malformed, Unauthenticated
from infra.settings import Settings
from queries import cursors
from queries.cursors import Cursor

OLD, NEW = "the old key, long enough for HS256", "the new key, long enough for HS256"
SESSION = Session(uuid.UUID(int=1), 1)
NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def both() -> str:
    return Settings(secret_key=NEW, previous_secret_keys=(OLD,)).signing_key()


def test_what_the_old_key_signed_still_counts(both: str) -> None:
    """Sessions, consistency tokens and cursors."""
    assert verify(encode_session(SESSION, OLD, NOW), both).session == SESSION
    token = Token("life", xid=7)
    assert TokenSigner(both).read(TokenSigner(OLD).sign(token)) == token
    cursor = Cursor(("a",))
    assert cursors.read(cursors.write(cursor, {}, OLD), {}, both) == cursor


def test_the_new_key_signs(both: str) -> None:
    """So that the old one can be taken away once what it signed has run out."""
    assert verify(encode_session(SESSION, both, NOW), NEW).session == SESSION
    assert TokenSigner(NEW).read(TokenSigner(both).sign(Token("life", batch=7))).batch == 7
    assert cursors.read(cursors.write(Cursor(("a",)), {}, both), {}, NEW).key == ("a",)


def test_a_key_that_is_taken_away_counts_no_more(both: str) -> None:
    """Nor does one that never was ours."""
    with pytest.raises(Unauthenticated):
        verify(encode_session(SESSION, OLD, NOW), NEW)
    with pytest.raises(Unauthenticated):
        verify(encode_session(SESSION, "somebody else's key, long enough", NOW), both)
    with pytest.raises(Malformed):
        TokenSigner(NEW).read(TokenSigner(OLD).sign(Token("life", xid=7)))
