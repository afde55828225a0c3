"""The edge of every query: what is cached and for how long, what a token gets, and what a reader has already."""

import threading
from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from db.page_cache import EPOCH_KEY, MANY_CUSTOMERS, discards_key
from infra.auth import Role
from infra.settings import Settings
from queries.api import create_app
from tests.queries.support import Shop
from tests.support import Clock

PAGES = ["/packages", "/packages?status=RECEIVED", "/summary", "/sites", "/tariffs", "/sites/PRINCIPAL/positions"]
NEVER_CACHED = ["/lookup?q=A-001", "/staff", "/packages/{package_id}/history", "/packages/{package_id}/fee"]


def cached(shop: Shop, path: str, **headers: str) -> str:
    """Ask, and tell where the answer came from."""
    answer = shop.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()}, role=Role.ADMIN)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["X-Cache"])


@pytest.mark.parametrize("path", PAGES)
def test_the_second_reader_gets_the_same_bytes(shop: Shop, path: str) -> None:
    """A page is computed once; its bytes, ETag and headers come back from Redis."""
    shop.publish(shop.stored(), scopes=["reference"])
    first, second = shop.get(path), shop.get(path)
    assert (first.headers["X-Cache"], second.headers["X-Cache"]) == ("MISS", "L2")
    assert first.content == second.content
    for header in ("ETag", "Cache-Control", "Consistency-Token", "Content-Type"):
        assert first.headers[header] == second.headers[header]
    assert first.headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("path", NEVER_CACHED)
def test_some_answers_are_never_cached(shop: Shop, path: str) -> None:
    """What is asked for once, or must show what no batch announces, is computed each time."""
    row = shop.stored()
    shop.publish(row)
    path = path.format(**row)
    assert [cached(shop, path), cached(shop, path)] == ["BYPASS", "BYPASS"]


def test_equal_questions_share_a_page(shop: Shop) -> None:
    """The order of parameters, repetitions and defaults make no difference; any value does."""
    shop.publish(shop.stored())
    assert cached(shop, "/packages?status=RECEIVED&status=ANNOUNCED&limit=50") == "MISS"
    assert cached(shop, "/packages?status=ANNOUNCED&status=RECEIVED&status=RECEIVED&q=&sort=newest") == "L2"
    assert cached(shop, "/packages?status=ANNOUNCED&status=RECEIVED&limit=49") == "MISS"
    assert cached(shop, "/packages?received_from=2026-11-01") == "MISS"
    assert cached(shop, "/packages?received_from=2026-11-01T05:00:00Z") == "L2"


def test_a_write_discards_the_pages_it_can_show_on_and_no_others(shop: Shop) -> None:
    """Pages of other statuses and customers stay; a page that shows the parcel is computed again."""
    row, other = shop.stored(), shop.delivered()
    shop.publish(row, other)
    stay = ["/packages?status=CANCELLED", f"/packages?customer_id={other['customer_id']}"]
    go = [
        "/packages",
        "/packages?status=RECEIVED",
        "/packages?status=DELIVERED&status=CANCELLED",
        "/packages?sort=owed",
    ]
    go += ["/packages?min_days=0", f"/packages?customer_id={row['customer_id']}", f"/packages/{row['package_id']}"]
    for path in (*stay, *go):
        cached(shop, path)
    shop.publish({**row, "status": "DELIVERED", "version": 3, "position": None, "delivered_at": shop.clock()})
    assert [cached(shop, path) for path in stay] == ["L2"] * len(stay)
    assert [cached(shop, path) for path in go] == ["MISS"] * len(go)
    assert shop.get("/packages?status=DELIVERED").json()["count"] == 2


def test_a_batch_of_very_many_customers_discards_every_customers_pages(shop: Shop) -> None:
    """It raises one scope in place of theirs; pages of statuses that it doesn't touch stay."""
    row = shop.stored()
    shop.publish(row)
    pages = [f"/packages?customer_id={row['customer_id']}", f"/customers/{row['customer_id']}"]
    assert [cached(shop, path) for path in (*pages, "/packages?status=CANCELLED")] == ["MISS"] * 3
    shop.publish(scopes=[MANY_CUSTOMERS])
    assert [cached(shop, path) for path in (*pages, "/packages?status=CANCELLED")] == ["MISS", "MISS", "L2"]


def test_a_slow_reader_never_fills_in_an_old_page(shop: Shop) -> None:
    """A page computed before a write and stored after it is found by nobody."""
    row = shop.stored()
    shop.publish(row)
    old_page = shop.get("/packages")
    old_key = next(key for key in shop.redis.keys("*:page:*"))
    packed = shop.redis.dump(old_key)
    shop.publish({**row, "recipient_name": "Another Name", "version": 3})
    assert shop.get("/packages").json()["items"][0]["recipient_name"] == "Another Name"
    assert packed is not None
    shop.redis.restore(old_key, 0, packed, replace=True)
    answer = shop.get("/packages")
    assert answer.headers["X-Cache"] == "L2"
    assert answer.json()["items"][0]["recipient_name"] == "Another Name"
    assert answer.content != old_page.content


def test_a_page_is_kept_under_what_its_own_snapshot_saw(shop: Shop) -> None:
    """A batch that has committed but isn't announced yet is in the page, and its announcement discards the page."""
    row = shop.stored()
    shop.publish(row)
    cached(shop, "/packages?status=RECEIVED")
    batch = shop.publish({**row, "version": 3}, announce=False)
    shop.redis.delete(*shop.redis.keys("*:page:*"))
    assert shop.get("/packages?status=RECEIVED").json()["items"][0]["version"] == 3
    assert cached(shop, "/packages?status=RECEIVED") == "MISS"  # Redis doesn't know that generation yet
    shop.announce(["all", "status:RECEIVED"], batch)
    assert cached(shop, "/packages?status=RECEIVED") == "L2"


def test_without_somebody_who_vouches_the_cache_is_passed_by(shop: Shop) -> None:
    """No projector, no cache: neither is it read, nor filled."""
    shop.publish(shop.stored())
    cached(shop, "/packages")
    shop.redis.delete(EPOCH_KEY)
    assert cached(shop, "/packages") == "BYPASS"
    shop.redis.set(EPOCH_KEY, "another-epoch")
    assert [cached(shop, "/packages"), cached(shop, "/packages")] == ["MISS", "L2"]


def test_no_store_goes_past_the_cache(shop: Shop) -> None:
    """It neither takes a page nor leaves one."""
    shop.publish(shop.stored())
    assert cached(shop, "/packages", Cache_Control="max-age=0, No-Store") == "BYPASS"
    assert cached(shop, "/packages", Cache_Control="no-cache") == "MISS"
    assert cached(shop, "/packages", Cache_Control="no-store") == "BYPASS"


def test_time_changes_a_page_without_a_refresh(shop: Shop) -> None:
    """At exactly next_fee_at the old fee holds; a microsecond later page, ETag and 304 are new."""
    row = shop.stored(hours=23)
    shop.publish(row)
    paths = ["/packages", f"/packages/{row['package_id']}", f"/track/{row['tracking_code']}"]
    old = {path: shop.get(path) for path in paths}
    shop.clock.advance(hours=1)
    for path, answer in old.items():
        again = shop.get(path, {"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.headers["X-Cache"]) == (304, "L2")
    shop.clock.advance(microseconds=1)
    for path, answer in old.items():
        again = shop.get(path, {"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.headers["X-Cache"]) == (200, "MISS")
        item = again.json().get("items", [again.json()])[0]
        assert (item["due"], item["next_fee_at"]) == (2500, "2026-11-25T16:00:00.000000Z")


@pytest.mark.parametrize(
    ("path", "hours"),
    [
        ("/packages?min_days=2", 47.5),
        ("/packages?sort=owed&limit=1", 47.5),
        ("/packages?sort=days", 47.5),
        ("/summary", 23.5),
        ("/summary", 167.5),
        ("/sites/PRINCIPAL/positions", 47.5),
    ],
)
def test_a_page_ends_when_any_candidate_changes_it(shop: Shop, path: str, hours: float) -> None:
    """Where time decides membership or order, a parcel that isn't shown ends the page too, to the microsecond."""
    shop.publish(shop.stored(hours=180.25, position="00"), shop.stored(hours=hours, base_fee=3500, position="01"))
    before = shop.get(path)
    shop.clock.advance(minutes=30)
    assert cached(shop, path) == "L2"
    shop.clock.advance(microseconds=1)
    after = shop.get(path)
    assert after.headers["X-Cache"] == "MISS"
    assert after.content != before.content


def test_another_parcel_overtakes_when_its_fee_rises(shop: Shop) -> None:
    """The dearest one may be one that the cached page doesn't show."""
    first = shop.stored(hours=71, base_fee=1500)
    second = shop.stored(hours=47.5, base_fee=2000, daily_storage=1000)
    shop.publish(first, second)
    assert shop.codes("/packages?sort=owed&limit=1") == [first["tracking_code"]]
    shop.clock.advance(minutes=31)
    assert shop.codes("/packages?sort=owed&limit=1") == [second["tracking_code"]]


def test_a_day_decides_until_midnight_in_bogota(shop: Shop) -> None:
    """The summary of today is another one a moment after midnight in Bogota."""
    shop.clock.now = shop.clock.now.replace(hour=4, minute=59)
    shop.publish(shop.row())
    staff = shop.staff[Role.VIEWER]
    pay = (
        "INSERT INTO payment_listing VALUES (uuidv7(), uuidv7(), 'PRINCIPAL', %s, 'CASH', 1, 1, null, null, %s, false)"
    )
    shop.conn.execute(pay, [staff, shop.clock()])
    assert [line["amount"] for line in shop.get("/summary").json()["income"]] == [1]
    shop.clock.advance(minutes=1)
    assert shop.get("/summary").json()["income"] == []
    assert [line["amount"] for line in shop.get("/summary?date=2026-11-23").json()["income"]] == [1]


def test_if_none_match(shop: Shop) -> None:
    """304 has no body and all the headers; lists, weak tags and `*` count, another tag doesn't."""
    row = shop.stored(hours=30)
    shop.publish(row)
    path = f"/packages/{row['package_id']}"
    assert shop.get(path).headers["ETag"] == '"2.1"'
    for known in ('"2.1"', 'W/"2.1"', '"1.0", "2.1"', "*", '"x",W/"2.1"'):
        answer = shop.get(path, {"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["ETag"] == '"2.1"'
        assert {"X-Cache", "Consistency-Token", "Cache-Control"} <= {name.title() for name in answer.headers}
    for known in ('"2.0"', "2.1", '"2', "", "\\", '"2.1'):
        assert shop.get(path, {"If-None-Match": known}).status_code == 200, known


def test_a_customers_new_name_is_no_304(shop: Shop) -> None:
    """The name changes without the parcel's version, and yet the old tag no longer holds."""
    row = shop.stored()
    shop.publish(row)
    path = f"/packages/{row['package_id']}"
    old = shop.get(path).headers["ETag"]
    shop.conn.execute("UPDATE customer_listing SET version = 2")
    shop.publish({**row, "customer_name": "Ana María"})
    answer = shop.get(path, {"If-None-Match": old})
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2.0.2"')


def test_a_query_token_is_honoured_by_the_cache(shop: Shop) -> None:
    """A page of an earlier batch is passed by, though no generation tells that it changed."""
    shop.publish(shop.stored())
    cached(shop, "/packages?status=CANCELLED")
    batch = shop.publish(shop.row())
    assert cached(shop, "/packages?status=CANCELLED") == "L2"
    assert cached(shop, "/packages?status=CANCELLED", **shop.token(batch=batch)) == "MISS"
    assert cached(shop, "/packages?status=CANCELLED", **shop.token(batch=batch)) == "L2"


def test_the_answers_token_names_its_batch(shop: Shop) -> None:
    """What one reader has seen, another one sees at least: the token of an answer is good for the next."""
    batch = shop.publish(shop.stored())
    token = shop.get("/packages").headers["Consistency-Token"]
    assert {"Consistency-Token": token} == shop.token(batch=batch)
    assert shop.get("/summary", {"Consistency-Token": token}).status_code == 200


def test_a_commands_token_is_waited_for(shop: Shop) -> None:
    """The answer comes when the projection holds the change, and includes it; on every route."""
    row = shop.row()
    shop.publish(row)
    with psycopg.connect(shop.settings.postgres_dsn) as conn:
        (xid,) = conn.execute("SELECT pg_current_xact_id()::text::bigint").fetchone() or (0,)
        token = shop.token(xid=xid)
        for path in ("/packages", "/lookup?q=x", "/sites", f"/packages/{row['package_id']}/history", "/updates"):
            answer = shop.get(path, token)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1"), path
    answers: list[Any] = []
    reader = threading.Thread(target=lambda: answers.append(shop.get("/packages", token)))
    reader.start()
    shop.publish({**row, "version": 2})
    reader.join(timeout=10)
    assert answers[0].status_code == 200
    assert answers[0].json()["items"][0]["version"] == 2


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"consistency_wait": 0.3})


def test_a_page_whose_snapshot_lags_is_not_shown(shop: Shop) -> None:
    """The watcher's word isn't enough: the page's own snapshot must hold the token, or it is 503."""
    batch = shop.publish(shop.stored())
    watcher = cast("FastAPI", shop.client.app).state.connections.watcher
    assert shop.get("/packages", shop.token(batch=batch)).status_code == 200
    ahead = watcher.current.__class__(watcher.current.incarnation, batch + 5, watcher.current.snapshot)

    async def says_it_is_ahead(*_: object) -> None:
        watcher._current = ahead  # noqa: SLF001 (a primary that is ahead of the replica we read)

    watcher.wait_for = says_it_is_ahead
    assert shop.get("/packages", shop.token(batch=batch + 5)).status_code == 503


def test_tokens_that_cannot_be_read_are_400(shop: Shop) -> None:
    """Garbage, another key's, and another life's of the cluster; on cached pages too."""
    batch = shop.publish(shop.stored())
    cached(shop, "/packages")
    foreign = shop.token(batch=batch, incarnation="another")
    for token in ({"Consistency-Token": "x"}, {"Consistency-Token": ""}, {"Consistency-Token": "a.b1.c"}, foreign):
        for path in ("/packages", "/lookup?q=x", "/tariffs", "/updates"):
            assert shop.get(path, token).status_code == 400, (path, token)


def test_who_asks_comes_before_the_cache(shop: Shop) -> None:
    """A cached page is no page for a stranger, and only what was answered with 200 is cached."""
    shop.publish(shop.stored())
    cached(shop, "/packages")
    assert shop.client.get("/api/v1/packages").status_code == 401
    missing = "/packages/01930000-0000-7000-8000-000000000000"
    assert [shop.get(missing).status_code for _ in range(2)] == [404, 404]
    assert len(shop.redis.keys("*:page:*")) == 1


def test_pages_discarded_by_hand(shop: Shop) -> None:
    """An ADMIN discards a status, a customer or everything."""
    row = shop.stored()
    shop.publish(row)
    pages = ["/packages?status=RECEIVED", "/packages?status=CANCELLED", f"/packages?customer_id={row['customer_id']}"]
    for query, gone in {"status=RECEIVED": [0], f"customer_id={row['customer_id']}": [2]}.items():
        for page in pages:
            cached(shop, page)
        answer = shop.client.delete(f"/api/v1/admin/cache?{query}", headers=shop.sign_in(Role.ADMIN))
        assert answer.status_code == 200
        assert [cached(shop, page) for page in pages] == ["MISS" if n in gone else "L2" for n in range(3)]
    assert shop.redis.exists(discards_key("all"))
    assert shop.client.delete("/api/v1/admin/cache", headers=shop.sign_in(Role.ADMIN)).json() == {
        "scopes": ["everything"]
    }
    assert cached(shop, pages[0]) == "BYPASS"


@pytest.fixture
def without_redis(shop: Shop, settings: Settings, clock: Clock) -> Iterator[Shop]:
    """The same shop, asked through an application whose Redis is away."""
    away = settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0", "throttle_track": "60/minute"})
    with TestClient(create_app(away, clock), raise_server_exceptions=False) as client:
        yield Shop(shop.conn, shop.redis, clock, away, client, shop.staff)


def test_redis_away_is_slower_and_never_wrong(without_redis: Shop) -> None:
    """Every page comes from PostgreSQL, marked BYPASS, the public one too."""
    shop = without_redis
    row = shop.stored()
    shop.publish(row)
    for path in (*PAGES, f"/track/{row['tracking_code']}", f"/packages/{row['package_id']}"):
        assert cached(shop, path) == "BYPASS"
    shop.publish({**row, "version": 9})
    assert shop.items("/packages")[0]["version"] == 9
    admin = shop.sign_in(Role.ADMIN)
    assert shop.client.get("/api/v1/admin/cache", headers=admin).json()["redis"] is None
    assert shop.client.delete("/api/v1/admin/cache", headers=admin).status_code == 503
