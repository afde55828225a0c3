"""Traces, where an OpenTelemetry endpoint is configured; without one, nothing of it is even imported.

A trace goes by the request's id, which the change log keeps of every command: the trace's id and that of its first span
are digests of it. So whoever has to do with a change later tells of it in the trace of the command that made it, and
nothing has to travel for that.
"""

import hashlib
import os
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Variables of the standard, either of which turns traces on; its others are heeded, too."""

MOST_FOLLOWED = 20
"""Commands of one batch that are followed."""

_provider: "TracerProvider | None" = None
_first: ContextVar[str | None] = ContextVar("first", default=None)


def is_on() -> bool:
    """Tell whether anybody listens."""
    return _provider is not None


def configure(exporter: "SpanExporter | None" = None) -> None:
    """Begin to tell, to the endpoint that is configured; without one, do nothing. Once a process."""
    global _provider  # noqa: PLW0603 (a process has one, as it has one log)
    if _provider is not None or (exporter is None and not any(map(os.environ.get, ENDPOINTS))):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 (costs 0.2 s)
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 (the same)
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 (the same)
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 (the same)
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415 (the same)

    class Ids(RandomIdGenerator):
        """Random ones, but for the first span of a request's trace."""

        def generate_trace_id(self) -> int:
            request_id = _first.get()
            return super().generate_trace_id() if request_id is None else _trace_id(request_id)

        def generate_span_id(self) -> int:
            request_id = _first.get()
            return super().generate_span_id() if request_id is None else _span_id(request_id)

    resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "paqueteria"})
    _provider = TracerProvider(resource=resource, id_generator=Ids())
    _provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))


def stop() -> None:
    """Send what hasn't been sent, and tell no more."""
    global _provider  # noqa: PLW0603 (see configure)
    if _provider is not None:
        _provider.shutdown()
    _provider = None


def tell_request(request_id: str, name: str, seconds: float, **attributes: str | int) -> None:
    """Tell of a request that has been answered, as the first of its trace."""
    token = _first.set(request_id)
    try:
        _tell(None, name, seconds, attributes)
    finally:
        _first.reset(token)


def tell_consequence(request_id: str, name: str, seconds: float, **attributes: str | int) -> None:
    """Tell of what has just been done because of a request, wherever that was answered."""
    _tell(request_id, name, seconds, attributes)


def _tell(parent: str | None, name: str, seconds: float, attributes: dict[str, str | int]) -> None:
    if _provider is None:
        return
    from opentelemetry.context import Context  # noqa: PLC0415 (see configure)
    from opentelemetry.trace import (  # noqa: PLC0415 (see configure)
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    context = Context()
    if parent is not None:
        first = SpanContext(_trace_id(parent), _span_id(parent), is_remote=True, trace_flags=TraceFlags(1))
        context = set_span_in_context(NonRecordingSpan(first), context)
    end = time.time_ns()
    span = _provider.get_tracer("paqueteria").start_span(
        name, context, attributes=attributes, start_time=end - int(seconds * 1e9)
    )
    span.end(end)


def _trace_id(request_id: str) -> int:
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:16], "big")


def _span_id(request_id: str) -> int:
    return int.from_bytes(hashlib.sha256(request_id.encode()).digest()[16:24], "big")
