"""Updates: what is projected is told, in order, and a stream ends when its process or its session does."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from infra.auth import Role, Session, encode_session
from infra.clock import system_clock
from queries import updates
from queries.api import create_app
from tests.queries.support import Shop
from tests.service import serving

ROOT = Path(__file__).parents[2]


@pytest.fixture
def address(shop: Shop) -> Iterator[str]:
    """The read API behind a real server, since the test client can't read an answer that never ends."""
    with serving(create_app(shop.settings, shop.clock)) as url:
        yield f"{url}/api/v1/updates"


def events(lines: Iterator[str], count: int) -> list[dict[str, Any]]:
    """Read so many events; each must be a `change` whose id is its batch."""
    found: list[dict[str, Any]] = []
    fields: dict[str, str] = {}
    while len(found) < count:
        line = next(lines)
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            data = json.loads(fields["data"])
            assert (fields["event"], fields["id"]) == ("change", str(data["batch"]))
            found.append(data)
            fields = {}
    return found


def test_what_changes_is_told(shop: Shop, address: str) -> None:
    """From now on, batch by batch, or after what a reader has; one that comes back goes on after the last id it saw."""
    shop.publish(shop.row())
    row = shop.stored()
    with httpx2.stream("GET", address, headers=shop.sign_in(), timeout=20) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert stream.headers["Cache-Control"] == "private, no-cache"
        lines = stream.iter_lines()
        assert next(lines).startswith(":")
        first = shop.publish(row)
        package = {"package_id": str(row["package_id"]), "status": "RECEIVED", "version": 2}
        assert events(lines, 1) == [{"batch": first, "packages": [package]}]
        second = shop.publish(shop.row(), shop.row())
        assert [(e["batch"], len(e["packages"])) for e in events(lines, 1)] == [(second, 2)]
    seen = {"Last-Event-ID": str(first - 1)}
    for asked, headers in ((f"?after={first - 1}", {}), ("", seen), ("?after=0", seen)):
        with httpx2.stream("GET", address + asked, headers=shop.sign_in() | headers, timeout=20) as stream:
            assert [event["batch"] for event in events(stream.iter_lines(), 2)] == [first, second]


def test_a_stream_needs_a_sign_in_and_a_good_id(shop: Shop, address: str) -> None:
    """401 for a stranger, 400 for an id that is none of ours."""
    assert httpx2.get(address).status_code == 401
    for bad in ("x", "-1", "9" * 30, ""):
        assert httpx2.get(address, headers=shop.sign_in() | {"Last-Event-ID": bad}).status_code == 400, bad
    for bad in ("all=1", "after=x", "after=-1", "after=1000000000000000000"):
        assert httpx2.get(f"{address}?{bad}", headers=shop.sign_in()).status_code == 422, bad


def test_a_quiet_stream_has_comments_and_ends_with_its_session(
    shop: Shop, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment says that it lives; once the session is over there is nothing more to see."""
    assert updates.COMMENT_EVERY == 15
    monkeypatch.setattr(updates, "COMMENT_EVERY", 0.05)
    with httpx2.stream("GET", address, headers=shop.sign_in(), timeout=20) as stream:
        lines = stream.iter_lines()
        assert [next(lines) for _ in range(5)] == [": following", "", ":", "", ":"]
        shop.conn.execute("UPDATE staff SET active = false WHERE staff_id = %s", [shop.staff[Role.VIEWER]])
        assert set(lines) <= {"", ":"}


def test_an_open_stream_ends_at_once_with_its_process(shop: Shop) -> None:
    """SIGTERM ends the server in a moment, though somebody is listening."""
    environment = os.environ | {
        "PAQUETERIA_DATABASE_URL": shop.settings.postgres_dsn,
        "PAQUETERIA_REDIS_URL": shop.settings.redis_dsn,
        "PAQUETERIA_SECRET_KEY": shop.settings.secret_key,
        "PAQUETERIA_DATA_DIR": str(shop.settings.data_dir),
    }
    program = (
        "import socket, uvicorn; from queries.api import create_app; s = socket.create_server(('127.0.0.1', 0));"
        "print(s.getsockname()[1], flush=True);"
        "uvicorn.Server(uvicorn.Config(create_app(), log_config=None)).run([s])"
    )
    now = system_clock()
    token = encode_session(Session(shop.staff[Role.VIEWER], 1), shop.settings.secret_key, now - timedelta(minutes=1))
    command = [sys.executable, "-c", program]
    with (
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        url = f"http://127.0.0.1:{port}/api/v1/updates"
        with httpx2.stream("GET", url, headers={"Authorization": f"Bearer {token}"}, timeout=20) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith(":")
            process.send_signal(signal.SIGTERM)
            assert set(lines) <= {""}  # without an end of its own it would go on, with comments, for the reader's sake
            process.wait(timeout=20)
