"""compose.yaml comes up whole, and what it promises is so: all but Grafana, whose image nothing here stands in for."""

import json
import urllib.parse
from collections.abc import Iterator

import httpx2
import pytest
from docker import DockerClient

from tests.containers.compose import Project
from tests.pictures import form_of, taken
from tests.support import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.xdist_group("containers")]

SECRETS = ("OWNER_PASSWORD", "WRITE_PASSWORD", "READ_PASSWORD", "PROJECT_PASSWORD", "SECRET_KEY", "ADMIN_PASSWORD")
ENVIRONMENT = {name: f"{name}-of-a-test" for name in (*SECRETS, "GRAFANA_PASSWORD")} | {"SHARED_BUFFERS": "128MB"}
PARCEL = {
    "guide_number": "COMPOSE-1",
    "customer_name": "Ana Peña",
    "customer_phone": "3001234567",
    "package_type": "NORMAL",
    "condition": "GOOD",
}


@pytest.fixture(scope="module")
def shop(docker: DockerClient, image: str) -> Iterator[Project]:
    """The shop of compose.yaml, up and healthy."""
    project = Project(docker, "paqueteria-tested", ENVIRONMENT, image)
    project.down()
    try:
        project.up("grafana")
        yield project
    finally:
        project.down()


@pytest.fixture(scope="module")
def client(shop: Project) -> Iterator[httpx2.Client]:
    """Somebody who comes through the proxy, signed in."""
    host, port, _ = shop.services["proxy"]["ports"][0].split(":")
    with httpx2.Client(base_url=f"http://{host}:{port}/api/v1", timeout=60) as client:
        form = {"username": "admin", "password": ENVIRONMENT["ADMIN_PASSWORD"]}
        client.headers["Authorization"] = f"Bearer {client.post('/auth/token', data=form).json()['access_token']}"
        yield client


@pytest.fixture(scope="module")
def received(client: httpx2.Client) -> httpx2.Response:
    """A parcel that has just come."""
    return client.post("/receptions", json=PARCEL)


def query(shop: Project, service: str, statement: str) -> str:
    """Ask a database as its owner does, on its own socket."""
    return shop.run(service, "psql", "-h", "/tmp", "-U", "paqueteria", "-d", "paqueteria", "-Atc", statement).strip()  # noqa: S108


def told(shop: Project, expression: str) -> dict[str, str]:
    """Ask Prometheus; gives a value by target."""
    address = f"http://prometheus:9090/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    program = f"import urllib.request as u; print(u.urlopen({address!r}, timeout=10).read().decode())"
    result = json.loads(shop.run("pages-1", "python", "-c", program))["data"]["result"]
    return {row["metric"]["instance"]: row["value"][1] for row in result}


def test_what_is_received_is_in_the_listing(client: httpx2.Client, received: httpx2.Response) -> None:
    """Written by one process, projected by another, read from a third: by the caller's token at once."""
    token = {"Consistency-Token": received.headers["Consistency-Token"]}
    listed = client.get("/packages?status=RECEIVED", headers=token).json()
    assert [row["package_id"] for row in listed["items"]] == [received.json()["package_id"]]


def test_the_standby_follows_and_answers(shop: Project, client: httpx2.Client, received: httpx2.Response) -> None:
    """It streams from the primary, shows what was received, and the read APIs are connected to it."""
    assert received.status_code == httpx2.codes.CREATED
    assert query(shop, "primary", "SELECT application_name, state FROM pg_stat_replication") == "standby|streaming"
    shown = "SELECT pg_is_in_recovery(), count(*) FROM package_listing"
    wait_until(lambda: query(shop, "replica", shown) == "t|1")
    answered = "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = 'paqueteria'"
    before = int(query(shop, "replica", answered))
    for _ in range(20):
        client.get("/packages", headers={"Cache-Control": "no-store"})
    wait_until(lambda: int(query(shop, "replica", answered)) >= before + 20)
    readers = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name LIKE 'paqueteria replica%'"
    assert query(shop, "replica", readers) == "paqueteria_read"


def test_a_photo_is_there_for_every_reader(shop: Project, client: httpx2.Client, received: httpx2.Response) -> None:
    """Whichever process took it."""
    form = form_of(taken())
    sent = client.post(f"/packages/{received.json()['package_id']}/photos", **form)
    assert sent.status_code == httpx2.codes.CREATED, sent.text
    photo = query(shop, "primary", "SELECT photo_id FROM package_photos")
    assert {client.get(f"/photos/{photo}").status_code for _ in range(8)} == {httpx2.codes.OK}


def test_prometheus_reaches_every_process(shop: Project) -> None:
    """All eight, by the names that compose gives them."""
    wait_until(lambda: list(told(shop, "up").values()) == ["1"] * 8)


def test_the_standby_leads_when_the_projector_is_stopped(shop: Project, client: httpx2.Client) -> None:
    """What is written afterwards shows as before."""
    leading = "paqueteria_projection_leader == 1"
    wait_until(lambda: len(told(shop, leading)) == 1)
    (leader,) = told(shop, leading)
    stopped = shop.containers[leader.partition(":")[0]]
    stopped.stop(timeout=30)
    sent = client.post("/receptions", json=PARCEL | {"guide_number": "COMPOSE-2"})
    token = {"Consistency-Token": sent.headers["Consistency-Token"]}
    wait_until(lambda: client.get("/packages?q=COMPOSE-2", headers=token).status_code == httpx2.codes.OK)
    assert client.get("/packages?q=COMPOSE-2", headers=token).json()["count"] == 1
    (other,) = {"projector:8000", "projector-standby:8000"} - {leader}
    wait_until(lambda: told(shop, leading).get(other) == "1")


def test_the_owners_commands_run_beside_it(shop: Project, received: httpx2.Response) -> None:
    """By the settings of what runs once: both sides are equal, says the proof."""
    assert received.status_code == httpx2.codes.CREATED
    shop.once("migrate", "verify")
