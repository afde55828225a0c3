"""Receive up to a thousand parcels in one request: each item succeeds or fails for itself, in a few statements."""

import json
from typing import Annotated, Any

from fastapi import Body, Response
from pydantic import BaseModel, Field, ValidationError, WithJsonSchema

from commands.packages import documents
from commands.receive_by_guide import ReceiveByGuide, Received, receive_all
from commands.transaction import OK, Context, Outcome, TheTransaction
from db.package_document import Package
from db.pools import Connection
from infra.auth import Role, allow
from infra.errors import Invalid, Problem, TooLarge
from infra.fields import errors_by_field
from infra.http import ProblemDocument, problems
from infra.routing import router

LARGEST_BATCH = 1000
PATH = "/api/v1/receptions/batch"

routes = router("packages")

# An item that can't be read is that item's own 422, so the items are validated one by one, in the handler.
Item = Annotated[Any, WithJsonSchema(ReceiveByGuide.model_json_schema())]
Batch = Annotated[list[Item], Field(min_length=1, json_schema_extra={"maxItems": LARGEST_BATCH})]


class ItemResult(BaseModel):
    """What became of one item: the package, or the problem."""

    status: int
    package: Package | None = None
    problem: ProblemDocument | None = None


class BatchResult(BaseModel):
    """One result for each item, in the order of the request."""

    results: list[ItemResult]


def _parse(item: object) -> ReceiveByGuide | Problem:
    try:
        return ReceiveByGuide.model_validate(item)
    except ValidationError as error:
        return Invalid(errors_by_field(error.errors()))


async def handle(conn: Connection, context: Context, batch: list[Any]) -> Outcome:
    """Receive the items that can be received, and say of each what became of it."""
    parsed = [_parse(item) for item in batch]
    received = iter(await receive_all(conn, context, [item for item in parsed if isinstance(item, ReceiveByGuide)]))
    results = [item if isinstance(item, Problem) else next(received) for item in parsed]
    shown_ids = [
        package_id
        for result in results
        if not isinstance(result, Problem)
        and (package_id := result.package_id if isinstance(result, Received) else result.blocker)
    ]
    shown = await documents(conn, shown_ids, context.now)
    texts = []
    for result in results:
        if isinstance(result, Received):
            texts.append(f'{{"status":{int(result.status)},"package":{shown[result.package_id]}}}')
            continue
        problem, blocker = (result, None) if isinstance(result, Problem) else (result.problem, result.blocker)
        stands_in_the_way = {"package": json.loads(shown[blocker])} if blocker else {}
        body = problem.body(PATH) | stands_in_the_way
        texts.append(json.dumps({"status": int(problem.status), "problem": body}))
    return Outcome(OK, f'{{"results":[{",".join(texts)}]}}')


@routes.post("/receptions/batch", response_model=BatchResult, responses=problems(401, 403, 409, 413, 415))
@allow(Role.OPERATOR)
async def receive_batch(batch: Annotated[Batch, Body()], transaction: TheTransaction) -> Response:
    """Receive 1 to 1,000 parcels by their guides. Only what is wrong with the whole request refuses it."""
    if len(batch) > LARGEST_BATCH:
        raise TooLarge(f"A batch has at most {LARGEST_BATCH} items")
    return await transaction.run(batch, lambda conn, context: handle(conn, context, batch))
