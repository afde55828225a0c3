"""The compose files name what is there: settings of ours, files of ours, places that the proxy sends to."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from commands.add_photo import LARGEST_PHOTO
from infra.settings import Settings

FOLDER = Path("infra/deploy")
SHOP: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
CLUSTER: dict[str, Any] = yaml.safe_load((FOLDER / "compose.redis-cluster.yaml").read_text())
OURS = {name: service for name, service in SHOP["services"].items() if service["image"] == "localhost/paqueteria"}

ELSEWHERE = {"./prometheus", "./grafana/provisioning", "./grafana/dashboards"}
"""Folders whose own tests look into them."""


def test_every_setting_is_one() -> None:
    """A name that nobody reads would be a setting that isn't in force."""
    given = {name for service in OURS.values() for name in service["environment"]}
    assert given <= {f"PAQUETERIA_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_processes_have_few_rights(name: str) -> None:
    """None can write to its root, or gain what it wasn't given."""
    service = OURS[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_each_process_works_as_its_own_role() -> None:
    """A reader has no URL by which it could write; only what runs once is the owner."""
    roles = {
        name: set(re.findall(r"postgresql://(\w+):", str(service["environment"]))) for name, service in OURS.items()
    }
    assert roles["queries-1"] == roles["queries-2"] == {"paqueteria_read"}
    assert roles["projector"] == roles["projector-standby"] == {"paqueteria_project", "paqueteria_read"}
    assert roles["commands-1"] == roles["pages-2"] == {"paqueteria_write", "paqueteria_read"}
    assert [name for name, found in roles.items() if "paqueteria" in found] == ["migrate"]


def test_every_mounted_file_is_there() -> None:
    """What compose can't find it makes an empty folder of."""
    volumes = [v for c in (SHOP, CLUSTER) for s in c["services"].values() for v in s.get("volumes", ())]
    mounted = {volume.split(":")[0] for volume in volumes if volume.startswith("./")} - ELSEWHERE
    assert mounted
    assert [name for name in mounted if not (FOLDER / name).is_file()] == []


def test_the_proxy_sends_to_what_is_there() -> None:
    """And so does Prometheus; each that serves is sent to."""
    serving = {name for name, service in OURS.items() if service.get("command", [""])[0] == "serve"}
    assert set(re.findall(r"server ([\w-]+):8000", (FOLDER / "nginx.conf").read_text())) == serving
    telling = serving | {"projector", "projector-standby"}
    assert set(re.findall(r'"([\w-]+):8000"', (FOLDER / "prometheus-targets.yaml").read_text())) == telling


def test_a_photo_gets_through_and_is_there_for_all() -> None:
    """The proxy takes what a route takes; what one process has stored, another shows, and a new container keeps."""
    (most,) = re.findall(r"client_max_body_size (\d+)m;", (FOLDER / "nginx.conf").read_text())
    assert int(most) * 1024 * 1024 > LARGEST_PHOTO
    for service in OURS.values():
        folder = service["environment"].get("PAQUETERIA_PHOTOS_URL", "").removeprefix("file://")
        assert service["command"][0] == "migrate" or f"photos:{folder}" in service["volumes"]
    assert "photos" in SHOP["volumes"]


def test_what_the_proxy_sends_to_keeps_its_address() -> None:
    """It looks a name up once: a container made anew under another address would be lost to it."""
    addresses = [
        service["networks"]["shop"]["ipv4_address"]
        for service in OURS.values()
        if service.get("command", [""])[0] == "serve"
    ]
    assert len(set(addresses)) == 6
