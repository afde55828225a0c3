"""Both APIs on one port."""

from fastapi.testclient import TestClient

import commands.api
import queries.api
from infra.settings import Settings
from tests.support import Clock
from web.api import create_app


def test_one_document_describes_both(settings: Settings, clock: Clock) -> None:
    """Every operation of either API is there once, under the same address, and so are health and metrics."""
    with TestClient(create_app(settings, clock)) as client:
        both = client.get("/openapi.json").json()["paths"]
        assert client.get("/health/ready").json()["missing"] == {}
        assert client.get("/api/v1/sites").json()["items"][0]["site"] == "PRINCIPAL"
        assert client.post("/api/v1/receptions").status_code == 401
        assert client.get("/docs").status_code == 200
    found = {(path, method) for path, operations in both.items() for method in operations}
    for api in (commands.api, queries.api):
        paths = api.create_app(settings, clock).openapi()["paths"]
        assert {(path, method) for path, operations in paths.items() for method in operations} <= found
    names = [operation["operationId"] for operations in both.values() for operation in operations.values()]
    assert len(names) == len(set(names))
