"""One trace from a command to the page that shows it, and nothing of the kind where nobody listens."""

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from db import breaker, page_cache
from infra import tracing
from infra.clock import system_clock
from infra.settings import Settings
from tests.db.test_admin_api import admin_of
from tests.service import projecting
from web.api import create_app

ANNOUNCED = {
    "customer_name": "Ana Peña",
    "customer_phone": "3001234567",
    "guide_number": "TRACED-1",
    "data_consent": True,
}


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.configure(exporter)
    yield exporter
    tracing.stop()


def test_a_command_the_batch_and_the_page_are_one_trace(
    settings: Settings, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the command's request id; whoever only asks for the page has a trace of their own."""
    monkeypatch.setattr(breaker, "PATIENCE", 10.0)  # a busy processor is no silent Redis, nor a projector that has died
    monkeypatch.setattr(page_cache, "EPOCH_LEASE", 60.0)
    with (
        projecting(settings, system_clock),
        TestClient(create_app(settings), headers=admin_of(settings, system_clock)) as client,
    ):
        announced = client.post("/api/v1/packages", json=ANNOUNCED, headers={"X-Request-Id": "walk-7"})
        token = {"Consistency-Token": announced.headers["Consistency-Token"]}
        shown = client.get("/api/v1/packages?status=ANNOUNCED", headers=token | {"X-Request-Id": "look-1"})
        assert (announced.status_code, shown.headers["X-Cache"]) == (201, "MISS")
    tracing.stop()
    told: dict[str, list[ReadableSpan]] = {}
    for span in spans.get_finished_spans():
        told.setdefault(span.name, []).append(span)
    (command,) = told["POST /api/v1/packages"]
    (project,) = told["project"]
    (page,) = told["refresh page"]
    (look,) = told["GET /api/v1/packages"]
    assert command.context is not None
    assert command.parent is None
    for consequence in (project, page):
        assert consequence.context is not None
        assert consequence.parent is not None
        assert consequence.context.trace_id == command.context.trace_id
        assert consequence.parent.span_id == command.context.span_id
    assert look.context is not None
    assert look.context.trace_id != command.context.trace_id
    assert page.attributes is not None
    assert project.attributes is not None
    assert page.attributes["batch"] == project.attributes["batch"]


def test_nobody_listens_by_default() -> None:
    """Without an endpoint nothing is told, and none of what telling takes is loaded."""
    check = """
import sys
import manage
from infra import tracing
tracing.configure()
tracing.tell_request("walk-7", "a request", 1.0)
assert not tracing.is_on()
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter"))])
"""
    told = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_the_configured_endpoint_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the standard's own variable and its own protocol."""
    paths: list[str] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            paths.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        tracing.configure()
        assert tracing.is_on()
        tracing.tell_request("walk-8", "a request", 0.1)
        tracing.stop()
        server.shutdown()
    assert paths == ["/v1/traces"]
