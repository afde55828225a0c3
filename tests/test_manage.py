"""The command line as its users have it: real processes, real ports, real signals."""

import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from typer.testing import CliRunner

import manage
from tests.support import PATIENCE, wait_until

pytestmark = pytest.mark.xdist_group("manage")


class Shop:
    """A folder of data, a port, and the processes on them."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PAQUETERIA_")}
        self.environment |= {
            "PAQUETERIA_DATA_DIR": str(folder),
            "PAQUETERIA_PORT": str(self.port),
            "PAQUETERIA_ADMIN_PASSWORD": "una-clave-de-prueba",
        }

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            env=self.environment | more,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    @contextlib.contextmanager
    def up(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `up` while the block lasts, from when it is ready; afterwards nothing of it may be left."""
        with (self.folder / "up.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "up", *arguments], env=self.environment, stdout=log, stderr=log
            )
        try:
            wait_until(lambda: self.is_ready() or process.poll() is not None)
            assert process.poll() is None, self.log()
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)

    def is_ready(self) -> bool:
        """Ask the health endpoint."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError):
            return False

    def get(self, path: str) -> str:
        """Ask on a connection of its own, so that either worker may answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
            return text

    def figure(self, name: str) -> float | None:
        """What `/metrics` says under this name."""
        lines = (line.rpartition(" ") for line in self.get("/metrics").splitlines())
        return next((float(value) for told, _, value in lines if told == f"paqueteria_{name}"), None)

    def stream(self) -> contextlib.closing[http.client.HTTPResponse]:
        """Sign in, and open the stream of updates, which has no end of its own."""
        api = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        api.request("POST", "/api/v1/auth/token", "username=admin&password=una-clave-de-prueba", form)
        token = json.loads(api.getresponse().read())["access_token"]
        api.request("GET", "/api/v1/updates", headers={"Authorization": f"Bearer {token}"})
        answer = api.getresponse()
        api.close()  # the answer keeps the connection for itself
        return contextlib.closing(answer)

    def log(self) -> str:
        """What `up` has said."""
        return (self.folder / "up.log").read_text()

    def processes(self) -> list[psutil.Process]:
        """Every process that works on this folder's data."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                told = process.environ().get("PAQUETERIA_DATA_DIR") == str(self.folder)
                if process.pid != os.getpid() and (told or str(self.folder) in " ".join(process.cmdline())):
                    found.append(process)
        return found

    def child(self, name: str) -> psutil.Process | None:
        """The child process that runs `manage.py <name>`."""
        return next((p for p in self.processes() if f"manage.py {name}" in " ".join(p.cmdline())), None)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def one_line(result: subprocess.CompletedProcess[str]) -> str:
    """A refusal is one line on standard error, and a status that isn't zero."""
    assert result.returncode != 0
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("paqueteria: ")
    return lines[0]


def test_a_day_of_the_whole_service(shop: Shop) -> None:
    """Start, refuse a second start, outlive a killed projector, stop with nothing left, and find the data again."""
    with shop.up("--demo", "50") as process:
        assert "may sign in" not in shop.log()
        assert "Made the first ADMIN: admin" in shop.log()
        assert "una-clave-de-prueba" not in shop.log()
        assert "Another process runs" in one_line(shop.run("up", PAQUETERIA_PORT=str(_free_port())))
        projector = shop.child("project")
        assert projector is not None
        projector.kill()
        wait_until(lambda: (again := shop.child("project")) is not None and again.pid != projector.pid)
        wait_until(lambda: "Ready at" in shop.log())
        assert "equals the write side" in shop.run("verify").stdout
        assert shop.run("staff", "add", "Ana", "--role", "viewer").stdout.startswith(
            "ana may sign in as VIEWER with the"
        )
        assert "believed" in shop.run("cache", "stats").stdout
        assert_is_monitored(shop)
        assert shop.run("cache", "clear").returncode == 0
        with shop.stream() as stream:
            assert stream.status == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
    assert shop.log().rstrip().endswith("Stopped.")
    assert "Traceback" not in shop.log()
    assert shop.processes() == []
    with shop.up():
        assert shop.log().count("Made the first ADMIN") == 1
        counted = shop.run("env")
        variables = dict(line.split("=", 1) for line in counted.stdout.splitlines())
        with psycopg.connect(shlex.split(variables["PAQUETERIA_DATABASE_URL"])[0]) as conn:
            assert conn.execute("SELECT sum(count)::int FROM package_counts").fetchone() == (50,)
    assert shop.processes() == []


def assert_is_monitored(shop: Shop) -> None:
    """The monitor measures all of it; beyond a threshold its status is 1, and it says what."""
    looked = shop.run("monitor", "--json", "--slow-ms", "60000", "--disk", "100")
    told = json.loads(looked.stdout)
    assert (looked.returncode, told["problems"]) == (0, [])
    assert [name for name, section in told.items() if "unknown" in section] == []
    assert [row["endpoint"] for row in told["endpoints"] if row["status"] != 200] == []
    assert {pool["name"] for pool in told["pools"]} == {"commands", "queries"}
    assert told["projection"]["led"] is True
    assert told["slow_statements"] != []
    assert {"refresh_views", "analyze", "index_report"} <= {job["job"] for job in told["jobs"]}
    slow = shop.run("monitor", "--slow-ms", "0")
    assert slow.returncode == 1
    assert "/api/v1/packages took" in slow.stdout


@pytest.mark.long
def test_a_killed_service_leaves_nothing_and_starts_again(shop: Shop) -> None:
    """Nobody tidies up after kill -9, so every process ends with its parent, and the next start recovers."""
    with shop.up() as process:
        process.kill()
        process.wait(PATIENCE)
        wait_until(lambda: shop.processes() == [])
    with shop.up():
        assert shop.is_ready()


@pytest.mark.long
def test_what_dies_is_started_again(shop: Shop) -> None:
    """Workers whose parent was killed don't keep the port, and each embedded server comes back with its data."""
    shop.environment["PAQUETERIA_WORKERS"] = "2"
    with shop.up():
        api = shop.child("serve")
        assert api is not None
        workers = api.children(recursive=True)
        assert len(workers) >= 2
        api.kill()
        psutil.wait_procs(workers, PATIENCE)
        assert not any(worker.is_running() for worker in workers)
        wait_until(lambda: (again := shop.child("serve")) is not None and again.pid != api.pid)
        next(process for process in shop.processes() if process.name() == "valkey-server").kill()
        psutil.Process(int((shop.folder / "postgres" / "postmaster.pid").read_text().split()[0])).kill()
        wait_until(lambda: shop.log().count("server_died") >= 2)
        wait_until(shop.is_ready)
        assert shop.run("verify").returncode == 0
    assert shop.processes() == []


@pytest.mark.long
def test_a_worker_that_gets_no_processor_for_a_while_is_kept(shop: Shop) -> None:
    """It isn't dead: killing what is slow for want of processors, and starting it anew, takes more of them."""
    shop.environment["PAQUETERIA_WORKERS"] = "2"
    with shop.up():
        api = shop.child("serve")
        assert api is not None
        workers = [child for child in api.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        for worker in workers:
            worker.suspend()
        time.sleep(8)  # uvicorn's own patience is five seconds, and it looks every half
        for worker in workers:
            worker.resume()
        wait_until(shop.is_ready)
        assert all(worker.is_running() for worker in workers)


@pytest.mark.long
def test_whichever_worker_is_asked_tells_of_all(shop: Shop) -> None:
    """Sums over the workers and the projector; one that is killed takes away what it had open, and no count.

    The projector tells its own where it is given a port.
    """
    port = _free_port()
    shop.environment |= {"PAQUETERIA_WORKERS": "2", "PAQUETERIA_METRICS_PORT": str(port)}
    answers = 'http_request_duration_seconds_count{method="GET",route="/health/live",status="200"}'
    with shop.up():
        for _ in range(20):
            shop.get("/health/live")
        wait_until(lambda: all(shop.figure(answers) == 20 for _ in range(8)))
        wait_until(lambda: shop.figure('processes{role="api"}') == 2)
        assert shop.figure('processes{role="projector"}') == 1
        assert (shop.figure("projection_leader"), shop.figure("projection_led")) == (1, 1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
            assert b"\npaqueteria_projection_leader 1.0\n" in answer.read()
        api = shop.child("serve")
        assert api is not None
        workers = [child for child in api.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        workers[0].kill()
        wait_until(lambda: not workers[0].is_running())
        wait_until(lambda: shop.figure('processes{role="api"}') == 1)
        wait_until(lambda: shop.figure('processes{role="api"}') == 2)
        assert all(shop.figure(answers) == 20 for _ in range(8))
        assert all(shop.figure('pool_max_connections{pool="commands"}') == 20 for _ in range(8))


def test_a_signal_while_it_starts_is_a_stop_like_any_other(shop: Shop) -> None:
    """What was begun is undone, and nothing went wrong: the status is zero."""
    command = [sys.executable, "manage.py", "up"]
    with subprocess.Popen(command, env=shop.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_until((shop.folder / "postgres.new").exists)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, b"Stopped.\n")
    wait_until(lambda: shop.processes() == [])
    assert shop.run("migrate").returncode == 0


@pytest.mark.long
def test_commands_bring_their_own_servers(shop: Shop) -> None:
    """Without `up`, a command runs the embedded servers for as long as it needs them."""
    assert "Applied 0001_write_side" in shop.run("migrate").stdout
    assert shop.run("seed", "20").returncode == 0
    assert "Rebuilt" in shop.run("rebuild", "package_listing").stdout
    assert "equals the write side" in shop.run("verify").stdout
    assert shop.run("project", "--parked").stdout == "Nothing is parked.\n"
    assert "--retry goes with --parked" in one_line(shop.run("project", "--retry"))
    environment = shop.run("env").stdout
    dsn = shlex.split(dict(line.split("=", 1) for line in environment.splitlines())["PAQUETERIA_DATABASE_URL"])[0]
    assert dsn.startswith("postgresql://")
    assert shop.processes() == []
    looked = shop.run("monitor", "--json")
    assert looked.returncode == 1
    assert "the service can't be asked" in looked.stdout
    assert shop.processes() == [], "a monitor that started servers would measure itself"
    assert "no read model nothing" in one_line(shop.run("rebuild", "nothing"))
    with shop.up():
        assert "Made the first ADMIN: admin" in shop.log(), "a shop that was seeded first needs its ADMIN too"


def test_a_monitor_that_watches_looks_again_until_it_is_stopped(shop: Shop) -> None:
    """One line of JSON a look, as it is made; that nothing runs here is what each of them says."""
    command = [sys.executable, "manage.py", "monitor", "--json", "--watch", "--every", "0.1"]
    with subprocess.Popen(command, env=shop.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
    for look in looks:
        assert any(problem.startswith("the service can't be asked") for problem in look["problems"])
        assert look["machine"]["cpus"] > 0


def test_what_can_be_foreseen_is_one_line(shop: Shop, database: str) -> None:
    """A taken port, a wrong address, a newer database: a sentence, and a status that isn't zero."""
    key = {"PAQUETERIA_SECRET_KEY": "a key for tests, and for nothing else"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port}" in one_line(shop.run("up", PAQUETERIA_PORT=port))
        assert f"Port {port}" in one_line(shop.run("serve", "all", PAQUETERIA_PORT=port))
    a_file = shop.folder / "file"
    a_file.touch()
    nowhere = f"postgresql://127.0.0.1:{_free_port()}/shop"
    assert "the database" in one_line(shop.run("up", PAQUETERIA_DATABASE_URL=nowhere, **key))
    assert "PAQUETERIA_DATABASE_URL" in one_line(shop.run("migrate", PAQUETERIA_DATABASE_URL="nonsense://", **key))
    assert "SECRET_KEY" in one_line(shop.run("env", PAQUETERIA_DATABASE_URL=database))
    assert "up.folder" in one_line(shop.run("up", PAQUETERIA_DATA_DIR=str(a_file / "up.folder")))
    assert "PAQUETERIA_PORT" in one_line(shop.run("up", PAQUETERIA_PORT="eighty"))
    with psycopg.connect(database) as conn:
        conn.execute("INSERT INTO schema_migrations (name, checksum) VALUES ('9999_later', '-')")
    assert "newer version" in one_line(shop.run("up", PAQUETERIA_DATABASE_URL=database, **key))


COMMANDS = "up|env|migrate|serve|project|rebuild|verify|seed|staff|staff add|cache|cache stats|cache clear|monitor"


@pytest.mark.parametrize("command", COMMANDS.split("|"))
def test_every_command_has_help(command: str) -> None:
    """`--help` says what each is for."""
    result = CliRunner().invoke(manage.app, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
