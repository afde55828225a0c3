"""The image is what compose.yaml needs of it: small rights, a health that tells, and an end that loses nothing."""

from collections.abc import Iterator

import httpx2
import pytest
from docker import DockerClient
from docker.models.containers import Container

from infra.settings import Settings
from tests.deploy.test_rollout import free_port
from tests.support import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.xdist_group("containers")]


@pytest.fixture
def service(docker: DockerClient, image: str, settings: Settings) -> Iterator[tuple[Container, str]]:
    """The whole service in one container, as compose.yaml restricts it; gives its address."""
    port = free_port()
    environment = {
        "PAQUETERIA_DATABASE_URL": settings.database_url,
        "PAQUETERIA_COMMANDS_URL": settings.commands_url,
        "PAQUETERIA_QUERIES_URL": settings.queries_url,
        "PAQUETERIA_REDIS_URL": settings.redis_url,
        "PAQUETERIA_SECRET_KEY": settings.secret_key,
        "PAQUETERIA_PORT": str(port),
    }
    container = docker.containers.run(
        image,
        environment=environment,
        network_mode="host",
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        detach=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url))
        yield container, url
    finally:
        container.remove(force=True)


def answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health/ready").status_code == httpx2.codes.OK
    except httpx2.TransportError:
        return False


def run(container: Container, *command: str) -> tuple[int, str]:
    done = container.exec_run(list(command))
    return done.exit_code, done.output.decode()


def test_it_serves_with_few_rights(service: tuple[Container, str]) -> None:
    """Neither root nor a writable root, and yet ready."""
    container, _ = service
    assert run(container, "id", "-u") == (0, "10001\n")
    code, said = run(container, "touch", "/srv/paqueteria/here")
    assert code != 0
    assert "Read-only" in said


def test_it_holds_what_it_needs_and_nothing_else(service: tuple[Container, str]) -> None:
    """No tests, no history, no embedded servers, nothing of development; the browser's files are there."""
    container, url = service
    _, found = run(container, "ls", "-A", "/srv/paqueteria")
    assert set(found.split()) == {
        "commands",
        "db",
        "infra",
        "manage.py",
        "node_modules",
        "projections",
        "queries",
        "web",
    }
    assert run(container, "python", "-c", "import pytest")[0] != 0
    assert httpx2.get(f"{url}/docs").status_code == httpx2.codes.OK


def test_its_end_is_its_own(service: tuple[Container, str]) -> None:
    """SIGTERM drains it: it ends by itself, well before whoever stops it loses patience."""
    container, _ = service
    container.stop(timeout=30)
    container.reload()
    assert container.attrs["State"]["ExitCode"] in (0, 143)
