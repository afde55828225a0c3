"""Log lines are JSON on standard error: one event each, with the request's id, and nobody's personal data."""

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any

import psycopg
import structlog


def without_values(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Tell of an exception by its kind and where it was raised: what it says may quote a row, or what somebody sent."""
    exc_info = event.pop("exc_info", None)
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if exc_info is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = [
            {"kind": told(link), "at": [f"{at.filename}:{at.lineno} {at.name}" for at in traceback.extract_tb(tb)]}
            for link, tb in _chain(error)
        ]
    return event


def told(error: BaseException) -> str:
    """Give an exception's kind, and of the database's the rule that was broken."""
    constraint = getattr(getattr(error, "diag", None), "constraint_name", None)
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    return f"{kind} ({constraint})" if constraint else kind


def reason(error: BaseException) -> str:
    """Tell why a connection was lost, or work on it failed; only what is about no row says so in its own words."""
    is_about_the_server = isinstance(error, psycopg.OperationalError | OSError)
    words = str(error).strip().partition("\n")[0] if is_about_the_server else ""
    return f"{told(error)}: {words}" if words else told(error)


def _chain(error: BaseException | None) -> Iterator[tuple[BaseException, Any]]:
    """Give an exception and what led to it."""
    while error is not None:
        yield error, error.__traceback__
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


SHARED = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    without_values,
)


class _Handler(logging.StreamHandler[Any]):
    """Ours, told from others' by its class."""


def configure(level: int = logging.INFO) -> None:
    """Send structlog's and the standard library's records the same way, once per process."""
    root = logging.getLogger()
    if any(isinstance(handler, _Handler) for handler in root.handlers):
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(SHARED),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root.addHandler(handler)
    root.setLevel(level)
    for noisy in ("apscheduler", "uvicorn.access", "psycopg.pool"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get(name: str) -> Any:  # noqa: ANN401
    """Give a logger that takes an event and its fields."""
    return structlog.stdlib.get_logger(name)
