"""How a page writes: by the write API's own handlers, each form once, however often it is sent."""

import json
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import Request, Response
from pydantic import ValidationError

from commands.transaction import IfMatch, Transaction
from db.connections import current_connections
from infra.auth import anyone
from infra.errors import Conflict, Invalid
from infra.fields import Message, errors_by_field

Command = TypeVar("Command", bound=Message)

KEY = r"^[A-Za-z0-9-]{8,80}$"
"""The idempotency key that a form carries from when it is shown."""


def transaction(request: Request, key: str | None, version: int | None = None) -> Transaction:
    """Give the transaction of a form; with a version it applies to what the reader saw, and to nothing newer."""
    if_match = IfMatch(None if version is None else frozenset({str(version)}))
    clock = request.app.state.clock
    return Transaction(request, current_connections(request), clock, anyone(request), key, if_match)


def command_of(model: type[Command], given: dict[str, Any]) -> Command:
    """Make a command of what a form gave; what it can't be made of raises Invalid, by field."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise Invalid(errors_by_field(list(error.errors()))) from None


def pesos_of(text: str) -> int | None:
    """Read an amount as people write it, `$ 20.000`; None for what is none."""
    digits = text.translate({ord(mark): None for mark in "$. \xa0"})
    return int(digits) if digits.isdecimal() else None


def accepted(answer: Response) -> Response:
    """Give a command's answer; a conflict that is kept under the form's key is raised like any other."""
    if answer.status_code == HTTPStatus.CONFLICT:
        body = json.loads(bytes(answer.body))
        known = ("type", "title", "status", "detail", "instance")
        raise Conflict(body["detail"], **{name: value for name, value in body.items() if name not in known})
    return answer
