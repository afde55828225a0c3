"""The service is replaced process by process, under load, behind the proxy that it is deployed with: nobody notices."""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest

from infra.auth import Session, encode_session
from infra.clock import system_clock
from infra.settings import Settings
from tests.chaos.house import own_environment
from tests.deploy.nginx import NGINX
from tests.support import wait_until

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("rollout")]

CONFIGURATION = Path("infra/deploy/nginx.conf")
FOLDER = "/tmp/"  # noqa: S108 (nginx's own, in a container that can write nowhere else)
PATIENCE = 60.0
PLACES = {name: f"{name}:8000" for name in ("commands-1", "commands-2", "queries-1", "queries-2", "pages-1", "pages-2")}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


ADD_STAFF = """
INSERT INTO staff (username, full_name, role, password_hash) VALUES ('ana', 'Ana', 'VIEWER', '-') RETURNING staff_id
"""


class Place:
    """Where one process of the service is served; another takes its place."""

    def __init__(self, application: str, settings: Settings, log: Path) -> None:
        self.port = free_port()
        self._command = [sys.executable, "manage.py", "serve", application]
        self._environment = own_environment(settings) | {
            "PAQUETERIA_PORT": str(self.port),
            "PAQUETERIA_THROTTLE_ANNOUNCE": "",
        }
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve, from when it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
        wait_until(self._is_ready)

    def end(self) -> None:
        """Ask it to end, and wait until it has."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) in (0, -signal.SIGTERM)

    def kill(self) -> None:
        """End it without asking."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/health/ready").status_code == 200
        return False


@pytest.fixture
def places(settings: Settings, tmp_path: Path) -> Iterator[dict[str, Place]]:
    """Two of the write API and two of the read API, with a projector."""
    with (tmp_path / "projector.log").open("ab") as log:
        command = [sys.executable, "manage.py", "project"]
        projector = subprocess.Popen(command, env=own_environment(settings), stdout=log, stderr=log)
    found = {name: Place(name.split("-")[0], settings, tmp_path / f"{name}.log") for name in list(PLACES)[:4]}
    for place in found.values():
        place.start()
    yield found
    for place in found.values():
        place.end()
    projector.send_signal(signal.SIGTERM)
    projector.wait(PATIENCE)


@pytest.fixture
def proxy(places: dict[str, Place], tmp_path: Path) -> Iterator[str]:
    """The proxy, by its own configuration with our addresses in it."""
    port = free_port()
    text = CONFIGURATION.read_text().replace(FOLDER, f"{tmp_path}/").replace("listen 8080", f"listen 127.0.0.1:{port}")
    ports = {name: place.port for name, place in places.items()}
    for name, address in PLACES.items():
        text = text.replace(address, f"127.0.0.1:{ports.get(name, ports['queries-1'])}")
    path = tmp_path / "nginx.conf"
    path.write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
    with (tmp_path / "nginx.log").open("ab") as log:
        command = [str(NGINX), "-c", str(path), "-g", "daemon off;", "-e", "stderr"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(PATIENCE)


Load = Callable[[], tuple[list[int], list[int], list[str]]]


@pytest.fixture
def load(proxy: str, settings: Settings, database: str) -> Iterator[Load]:
    """Announces and reads without a pause; gives the announced numbers, the reads' statuses, and what went wrong."""
    with psycopg.connect(database, autocommit=True) as conn:
        row = conn.execute(ADD_STAFF).fetchone()
    assert row is not None
    token = encode_session(Session(row[0], 1), settings.signing_key(), system_clock())
    announced: list[int] = []
    read: list[int] = []
    wrong: list[str] = []
    ended = threading.Event()
    numbers = itertools.count()

    def announce() -> None:
        with httpx2.Client(base_url=proxy) as client:
            while not ended.is_set():
                number = next(numbers)
                body = {
                    "customer_name": "Ana Peña",
                    "customer_phone": f"300{number:07}",
                    "guide_number": f"GUIDE-{number}",
                    "data_consent": True,
                }
                with noting(wrong):
                    answer = client.post("/api/v1/packages", json=body)
                    if answer.status_code != 201:
                        wrong.append(f"{answer.status_code} {answer.text}")
                    announced.append(number)

    def look() -> None:
        headers = {"Authorization": f"Bearer {token}", "Cache-Control": "no-store"}
        with httpx2.Client(base_url=proxy, headers=headers) as client:
            while not ended.is_set():
                with noting(wrong):
                    answer = client.get("/api/v1/packages")
                    if answer.status_code != 200:
                        wrong.append(f"{answer.status_code} {answer.text}")
                    read.append(answer.status_code)

    threads = [threading.Thread(target=work) for work in (announce, announce, look, look)]
    for thread in threads:
        thread.start()
    yield lambda: (announced, read, wrong)
    ended.set()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def noting(wrong: list[str]) -> Iterator[None]:
    """A connection that broke is a failed request like any other."""
    try:
        yield
    except httpx2.TransportError as error:
        wrong.append(repr(error))


def go_on(load: Load) -> None:
    """Return once as much again has been announced and read."""
    announced, read, _ = load()
    enough = len(announced) + 20, len(read) + 20
    wait_until(lambda: len(announced) > enough[0] and len(read) > enough[1])


def test_a_roll_out_fails_no_request(places: dict[str, Place], load: Load, database: str) -> None:
    """Each process is ended and replaced, twice; every announcement was acknowledged, and is there once."""
    for place in [*places.values()] * 2:
        place.end()
        place.start()
        go_on(load)
    announced, read, wrong = load()
    assert wrong == []
    assert len(read) > 100
    with psycopg.connect(database) as conn:
        rows = conn.execute("SELECT guide_number, count(*) FROM packages GROUP BY guide_number").fetchall()
    assert {count for _, count in rows} == {1}
    assert {guide for guide, _ in rows} >= {f"GUIDE-{number}" for number in announced[:-10]}


def test_a_process_that_is_killed_fails_no_command(places: dict[str, Place], load: Load) -> None:
    """What it had been asked is asked of the other, under the same key: done once, though it was sent twice."""
    place = places["commands-1"]
    for _ in range(3):
        place.kill()
        place.start()
        go_on(load)
    assert load()[2] == []
