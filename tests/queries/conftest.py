"""A shop whose read models a test fills by hand."""

from collections.abc import Iterator

import psycopg
import pytest
from fastapi.testclient import TestClient
from redis import Redis

from db import announcements, breaker, replicas
from db.page_cache import EPOCH_KEY
from infra.auth import Role
from infra.settings import Settings
from queries.api import create_app
from tests.queries.support import EPOCH, Shop
from tests.support import Clock

ADD_STAFF = """
INSERT INTO staff (username, full_name, role, password_hash) VALUES (%s, %s, %s, 'none') RETURNING staff_id
"""


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy processor is no silent Redis or standby; what is about silence brings its own patience."""
    monkeypatch.setattr(breaker, "PATIENCE", 10.0)
    monkeypatch.setattr(announcements, "EPOCH_LEASE", 10.0)
    monkeypatch.setattr(replicas, "PATIENCE", 10.0)
    monkeypatch.setattr(replicas, "SILENCE", 10.0)


@pytest.fixture
def shop(settings: Settings, clock: Clock) -> Iterator[Shop]:
    """A shop with one person of each role, and a page cache that somebody vouches for."""
    with (
        psycopg.connect(settings.postgres_dsn, autocommit=True) as conn,
        Redis.from_url(settings.redis_dsn) as redis,
        TestClient(create_app(settings, clock), raise_server_exceptions=False) as client,
    ):
        redis.flushdb()
        redis.set(EPOCH_KEY, EPOCH)
        staff = {}
        for role in Role:
            row = conn.execute(ADD_STAFF, [role.lower(), role.title(), role]).fetchone()
            assert row is not None
            staff[role] = row[0]
        yield Shop(conn, redis, clock, settings, client, staff)
