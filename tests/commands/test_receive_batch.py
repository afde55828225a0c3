"""Batches: a result for each item, each for itself, in a few statements for all of them."""

import asyncio
import json
from typing import Any

import pytest
from fastapi import FastAPI

from tests.commands.conftest import Counter, Headers, Serve, Sql


def test_each_item_has_its_result(counter: Counter, sql: Sql) -> None:
    """In order, whatever becomes of the others; a problem is a whole problem document."""
    announced = counter.announce()
    here = counter.receive(position="50")
    batch = [
        counter.parcel(),
        counter.parcel(guide_number=announced["guide_number"]),
        counter.parcel(guide_number=here["guide_number"]),
        counter.parcel(position="50"),
        counter.parcel(position="60"),
        counter.parcel(position="60"),
        counter.parcel(position="Z-1"),
        counter.parcel(site="NOWHERE"),
        counter.parcel(customer_name=None),
        counter.parcel(condition="LOST"),
        [],
        "text",
        {"guide_number": "\ud800"},
    ]
    twin = counter.parcel()
    batch += [twin, twin]
    answer = counter.client.post(
        "/api/v1/receptions/batch",
        content=json.dumps(batch),
        headers=counter.headers | {"Content-Type": "application/json"},
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    statuses = [201, 200, 409, 409, 201, 409, 422, 422, 422, 422, 422, 422, 422, 201, 409]
    assert [result["status"] for result in results] == statuses
    assert [result.keys() - {"status"} for result in results] == [
        {"package"} if status < 400 else {"problem"} for status in statuses
    ]
    assert [result["package"]["position"] for result in results if "package" in result] == ["00", "01", "60", "02"]
    assert results[1]["package"]["package_id"] == announced["package_id"]
    blockers = {2: here["package_id"], 3: here["package_id"], 5: results[4]["package"]["package_id"]}
    blockers[14] = results[13]["package"]["package_id"]
    for index, package_id in blockers.items():
        assert results[index]["problem"]["package"]["package_id"] == package_id
    assert results[9]["problem"]["errors"].keys() == {"condition"}
    assert results[9]["problem"]["instance"] == "/api/v1/receptions/batch"
    assert sql("SELECT count(*) AS n FROM packages WHERE status = 'RECEIVED'")[0]["n"] == 5
    assert sql("SELECT count(*) AS n FROM customers")[0]["n"] == 2 + 3


def test_a_twin_of_a_failed_item_gets_its_chance(counter: Counter) -> None:
    """The first that can be received wins."""
    twin = counter.parcel()
    answer = counter.post("/receptions/batch", [twin | {"position": "Z-9"}, twin, twin])
    assert [result["status"] for result in answer.json()["results"]] == [422, 201, 409]


def test_a_full_shelf_receives_what_it_can(counter: Counter, sql: Sql) -> None:
    sql("DELETE FROM positions WHERE ordinal >= 3")
    answer = counter.post("/receptions/batch", [counter.parcel() for _ in range(5)])
    assert [result["status"] for result in answer.json()["results"]] == [201, 201, 201, 409, 409]
    assert "full" in answer.json()["results"][4]["problem"]["detail"]
    assert sql("SELECT count(*) AS n FROM customers")[0]["n"] == 3


def test_a_batch_is_of_1_to_1000(counter: Counter) -> None:
    """None is 422, more is 413, and no array is 422."""
    assert counter.post("/receptions/batch", []).status_code == 422
    assert counter.post("/receptions/batch", {}).status_code == 422
    assert counter.post("/receptions/batch", [{}] * 1001).status_code == 413


def test_a_thousand_with_one_phone_between_two(counter: Counter, admin: Headers, sql: Sql) -> None:
    """Every parcel has its place, its log and its customer, and a replay of it all is one answer."""
    shelf = {"prefix": "B-", "first": 1, "last": 950, "width": 3}
    assert counter.client.post("/api/v1/sites/PRINCIPAL/positions", json=shelf, headers=admin).status_code == 201
    batch = [counter.parcel(customer_phone=f"300{number // 2:07}") for number in range(1000)]
    key = {"Idempotency-Key": "the whole van"}
    first, again = counter.post("/receptions/batch", batch, **key), counter.post("/receptions/batch", batch, **key)
    assert first.content == again.content
    results = first.json()["results"]
    assert {result["status"] for result in results} == {201}
    assert [result["package"]["guide_number"] for result in results] == [parcel["guide_number"] for parcel in batch]
    assert results[0]["package"]["position"] == "00"
    assert results[999]["package"]["position"] == "B-900"
    assert sql("SELECT count(*) AS n FROM customers")[0]["n"] == 500
    assert sql("SELECT count(*) AS n FROM change_log WHERE package_id IS NOT NULL")[0]["n"] == 2000


@pytest.mark.anyio
async def test_batches_and_single_commands_meet(
    app: FastAPI, serve: Serve, counter: Counter, operator: Headers, sql: Sql
) -> None:
    """Two batches with the same guides and phones in opposite order, and single ones: each guide is one parcel."""
    batch = [counter.parcel(customer_phone=f"300{number:07}") for number in range(40)]
    async with serve(app) as client:

        async def receive(items: list[dict[str, Any]]) -> list[int]:
            answer = await client.post("/api/v1/receptions/batch", json=items, headers=operator)
            assert answer.status_code == 200
            return [result["status"] for result in answer.json()["results"]]

        async def receive_one(item: dict[str, Any]) -> list[int]:
            return [(await client.post("/api/v1/receptions", json=item, headers=operator)).status_code]

        work = [receive(batch), receive(batch[::-1]), *(receive_one(item) for item in batch[::5])]
        statuses = [status for result in await asyncio.gather(*work) for status in result]
    assert statuses.count(201) == 40
    assert set(statuses) == {201, 409}
    assert sql("SELECT count(*) AS n, count(DISTINCT guide_key) AS guides FROM packages") == [{"n": 40, "guides": 40}]
    assert sql("SELECT count(*) AS n FROM positions WHERE package_id IS NOT NULL")[0]["n"] == 40
    assert sql("SELECT count(*) AS n FROM customers")[0]["n"] == 40


def test_a_batch_is_one_transaction_without_savepoints(counter: Counter, sql: Sql) -> None:
    """Each savepoint that writes takes a transaction id of its own: the rows of a batch of 90 have one in all."""
    counter.post("/receptions/batch", [counter.parcel() for _ in range(90)])
    written = "SELECT xmin::text FROM packages UNION SELECT xmin::text FROM change_log"
    assert len(sql(f"{written} UNION SELECT xmin::text FROM positions WHERE package_id IS NOT NULL")) == 1
