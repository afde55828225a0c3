"""Relocating: to a free place, and its old one is free at once."""

from collections.abc import Callable
from typing import Any

from tests.commands.conftest import Counter


def test_a_parcel_moves(counter: Counter, changes: Callable[..., list[dict[str, Any]]]) -> None:
    package = counter.receive()
    answer = counter.post(f"/packages/{package['package_id']}/relocation", {"position": "07"})
    assert (answer.status_code, answer.json()["position"], answer.json()["version"]) == (200, "07", 2)
    assert counter.receive()["position"] == "00"
    change = changes(package["package_id"])[-1]
    assert change["type"] == "PackageRelocated"
    assert change["data"] == {"before": {"position": "00"}, "after": {"position": "07"}}


def test_where_it_cannot_go(counter: Counter) -> None:
    """A taken place shows who stands there, its own is taken by itself, and an unknown one is a wrong field."""
    first, second = counter.receive(), counter.receive()
    path = f"/packages/{first['package_id']}/relocation"
    for position, who in (("01", second), ("00", first)):
        answer = counter.post(path, {"position": position})
        assert (answer.status_code, answer.json()["package"]["package_id"]) == (409, who["package_id"])
    assert counter.post(path, {"position": "100"}).json()["errors"].keys() == {"position"}
    assert counter.post(path, {}).status_code == 422


def test_only_what_is_in_storage_moves(counter: Counter) -> None:
    announced, delivered = counter.announce(), counter.deliver(counter.receive())
    for package in (announced, delivered):
        assert counter.post(f"/packages/{package['package_id']}/relocation", {"position": "07"}).status_code == 409
