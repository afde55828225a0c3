"""The previous release goes on working while, and after, the schema is brought to this one's."""

from pathlib import Path

import psycopg
import pytest

RELEASE = Path(__file__).with_name("previous_release.sql").read_text()
STATEMENTS = dict(part.split("\n", 1) for part in RELEASE.removeprefix("-- ").split("\n-- "))


def test_enough_is_held_against_the_schema() -> None:
    """The statements are of every part of the service."""
    assert len(STATEMENTS) > 80
    assert {name.split(".")[0] for name in STATEMENTS} == {"commands", "db", "projections", "queries"}


def test_every_statement_of_the_previous_release_is_understood(database: str) -> None:
    """No migration takes away what the running processes name: a column, a function, a constraint to infer."""
    missing = {}
    with psycopg.connect(database, autocommit=True) as conn:
        for name, statement in STATEMENTS.items():
            try:
                conn.execute(f"PREPARE tried AS {statement}".encode())
                conn.execute("DEALLOCATE tried")
            except psycopg.Error as error:
                missing[name] = str(error)
    assert missing == {}


def test_what_is_taken_away_is_noticed(database: str) -> None:
    """The mutant that renames a column."""
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("ALTER TABLE packages RENAME COLUMN carrier TO courier")
    with pytest.raises(AssertionError):
        test_every_statement_of_the_previous_release_is_understood(database)
