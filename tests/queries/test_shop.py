"""Customers, sites, shelves, tariffs, staff, the summary, and what the public may see."""

import uuid
from datetime import timedelta

import psycopg
import pytest
from fastapi.testclient import TestClient

from infra.auth import Role
from queries.api import create_app
from tests.queries.support import Shop
from tests.support import Clock

ADD_CUSTOMER = """
INSERT INTO customer_listing
SELECT %(id)s, %(version)s, %(name)s, %(phone)s, NULL, NULL, %(building)s, NULL, NULL, NULL,
    %(at)s, ' ' || searchable(concat_ws(' ', %(name)s::text, %(phone)s::text, %(building)s::text))
"""


def add_customer(shop: Shop, name: str, phone: str | None = None, building: str | None = None) -> uuid.UUID:
    customer_id = uuid.uuid4()
    values = {"id": customer_id, "version": 3, "name": name, "phone": phone, "building": building, "at": shop.clock()}
    shop.conn.execute(ADD_CUSTOMER, values)
    return customer_id


def test_customers_are_found_by_words_and_paged_by_name(shop: Shop) -> None:
    """Accents and order don't matter; pages follow the name and never repeat."""
    for name in ("Luz Peña", "Ana Gómez", "José Núñez", "Ana Gómez"):
        add_customer(shop, name, building="Torre Norte")
    add_customer(shop, "Óscar", phone="+573115556677")
    shop.publish(scopes=["customers"])

    def names(query: str) -> list[str]:
        return [item["name"] for item in shop.items(f"/customers{query}")]

    assert names("") == ["Ana Gómez", "Ana Gómez", "José Núñez", "Luz Peña", "Óscar"]
    assert names("?q=GOMEZ ana") == ["Ana Gómez", "Ana Gómez"]
    assert names("?q=norte&limit=3") == ["Ana Gómez", "Ana Gómez", "José Núñez"]
    assert names("?q=311 555") == ["Óscar"]
    assert names("?q=os") == ["Óscar"]
    assert names("?q=sc") == []
    assert names("?q=%25") == []
    seen, cursor = [], ""
    while True:
        answer = shop.get(f"/customers?limit=2{cursor and '&cursor='}{cursor}").json()
        seen += [item["customer_id"] for item in answer["items"]]
        cursor = answer["next_cursor"] or ""
        if not cursor:
            break
    assert len(seen) == len(set(seen)) == 5
    cursor = shop.get("/customers?limit=2").json()["next_cursor"]
    assert shop.get(f"/customers?q=ana&cursor={cursor}").status_code == 400
    assert shop.get("/customers?cursor=x").status_code == 400
    assert shop.get("/customers?q=%00").status_code == 422


def test_one_customer_with_counts(shop: Shop) -> None:
    """Version for `If-Match`, and how many parcels are in each status; a change of the customer shows at once."""
    customer_id = add_customer(shop, "Ana Gómez")
    shop.publish(shop.stored(customer_id=customer_id), shop.delivered(customer_id=customer_id), shop.row())
    path = f"/customers/{customer_id}"
    answer = shop.get(path).json()
    assert answer["version"] == 3
    assert answer["by_status"] == {"ANNOUNCED": 0, "RECEIVED": 1, "DELIVERED": 1, "CANCELLED": 0}
    assert shop.get(path).headers["X-Cache"] == "L2"
    shop.conn.execute("UPDATE customer_listing SET name = 'Ana María', version = 4")
    shop.publish(scopes=["customers", f"customer:{customer_id}"])
    assert shop.get(path).json()["name"] == "Ana María"
    assert shop.get(f"/customers/{uuid.uuid4()}").status_code == 404
    assert shop.get("/customers/7").status_code == 404


def test_the_shelf_shows_every_position(shop: Shop) -> None:
    """In the order of allotment, each with its parcel, priced now, or null."""
    row = shop.stored(hours=30, position="03")
    shop.publish(row, shop.stored(position="04", site="NORTE"))
    shelf = shop.items("/sites/PRINCIPAL/positions")
    assert [place["code"] for place in shelf] == [f"{n:02}" for n in range(100)]
    assert {place["code"]: place["package"]["due"] for place in shelf if place["package"]} == {"03": 2500}
    part = shop.items("/sites/PRINCIPAL/positions?limit=3&offset=2")
    assert [(place["code"], place["package"] is None) for place in part] == [("02", True), ("03", False), ("04", True)]
    assert shop.items("/sites/PRINCIPAL/positions?offset=100") == []
    for site in ("NOWHERE", "x", "%00"):
        assert shop.get(f"/sites/{site}/positions").status_code == 404, site
    for query in ("limit=0", "limit=1001", "offset=-1", "offset=9223372036854775807"):
        assert shop.get(f"/sites/PRINCIPAL/positions?{query}").status_code == 422, query


def test_sites_and_tariffs_are_public(shop: Shop) -> None:
    """A new tariff is announced beforehand, and takes over at exactly its instant."""
    tomorrow = shop.clock() + timedelta(days=1)
    add = "INSERT INTO tariffs (valid_from, base_fee_normal, base_fee_extra_sized, daily_storage) VALUES (%s, 1, 2, 3)"
    shop.conn.execute(add, [tomorrow])
    shop.publish(scopes=["reference"])
    site = shop.client.get("/api/v1/sites").json()["items"][0]
    assert site.keys() == {"site", "name", "address", "phone", "opening_hours", "version"}

    def fees() -> list[tuple[int, str | None]]:
        items = shop.client.get("/api/v1/tariffs").json()["items"]
        return [(item["base_fees"]["NORMAL"], item["valid_until"]) for item in items]

    assert fees() == [(1500, "2026-11-25T15:00:00.000000Z"), (1, None)]
    shop.clock.now = tomorrow - timedelta(microseconds=1)
    assert len(fees()) == 2
    shop.clock.now = tomorrow
    assert fees() == [(1, None)]


def test_staff_are_for_an_admin(shop: Shop) -> None:
    """Names and roles, never a password; nobody else sees them."""
    answer = shop.get("/staff", role=Role.ADMIN).json()
    assert [person["username"] for person in answer["items"]] == ["admin", "operator", "viewer"]
    assert answer["items"][0].keys() == {
        "staff_id",
        "username",
        "full_name",
        "role",
        "active",
        "version",
        "created_at",
    }
    assert shop.get("/staff", role=Role.OPERATOR).status_code == 403


PAY = "INSERT INTO payment_listing VALUES (uuidv7(), uuidv7(), %s, %s, %s, %s, %s, null, null, %s, %s)"


def test_the_summary_counts_and_sums(shop: Shop) -> None:
    """Counts by status, places, classes that include the ones after them, and a day's money by method and person."""
    hours = [1, 24, 24.5, 24 * 8, 24 * 31, 24 * 50]
    rows = [shop.stored(hours=h, site="NORTE" if h == 24.5 else "PRINCIPAL") for h in hours]
    shop.publish(*rows, shop.row(), shop.delivered())
    ana, eva = shop.staff[Role.ADMIN], shop.staff[Role.OPERATOR]
    today = shop.clock()
    for payment in (
        ["PRINCIPAL", ana, "CASH", 1500, 1500, today, False],
        ["PRINCIPAL", ana, "CASH", 2000, 2500, today, False],
        ["NORTE", ana, "CASH", 1000, 1000, today, False],
        ["PRINCIPAL", ana, "NEQUI", 0, 3500, today, False],
        ["PRINCIPAL", ana, "NEQUI", 0, -3500, today, True],
        ["PRINCIPAL", eva, "CASH", 0, 0, today, False],
        ["PRINCIPAL", eva, "CASH", 5000, 5000, today - timedelta(hours=11), False],  # yesterday in Bogota
    ):
        shop.conn.execute(PAY, payment)

    def line(method: str, who: uuid.UUID, *figures: int) -> dict[str, object]:
        amount, waived, count = figures
        return {"method": method, "staff_id": str(who), "amount": amount, "waived": waived, "count": count}

    answer = shop.get("/summary").json()
    income = sorted(answer.pop("income"), key=lambda made: (made["method"], made["staff_id"] != str(ana)))
    assert income == [line("CASH", ana, 4500, 500, 3), line("CASH", eva, 0, 0, 1), line("NEQUI", ana, 0, 0, 0)]
    assert answer == {
        "by_status": {"ANNOUNCED": 1, "RECEIVED": 6, "DELIVERED": 1, "CANCELLED": 0},
        "positions": {"free": 94, "taken": 6},
        "overdue": {"24h": 4, "7d": 3, "30d": 2, "45d": 1},
        "as_of": "2026-11-24T15:00:00.000000Z",
    }
    north = shop.get("/summary?site=NORTE&date=2026-11-24").json()
    assert north["income"] == [line("CASH", ana, 1000, 0, 1)]
    assert (north["by_status"]["RECEIVED"], north["overdue"]["24h"], north["positions"]["free"]) == (1, 1, 0)
    assert shop.get("/summary?date=2026-11-23").json()["income"] == [line("CASH", eva, 5000, 0, 1)]
    for query in ("date=2026-02-30", "date=0001-01-01", "date=9999-12-31", "date=x", "site=%00", "day=2026-11-24"):
        assert shop.get(f"/summary?{query}").status_code == 422, query


def test_a_settled_day_is_read_from_its_view(shop: Shop) -> None:
    """Only once the day had been over for an hour when the view was refreshed; until then from the payments."""
    shop.conn.execute(PAY, ["PRINCIPAL", shop.staff[Role.ADMIN], "CASH", 700, 700, shop.clock(), False])
    midnight = "2026-11-25T05:00:00Z"
    refresh = """INSERT INTO view_refreshes VALUES ('daily_summary', %s::timestamptz + %s::interval, '1 second')
        ON CONFLICT (view) DO UPDATE SET refreshed_at = excluded.refreshed_at"""
    for since, amounts in {"59 minutes": [700], "1 hour": []}.items():  # the view itself was never filled here
        shop.conn.execute(refresh, [midnight, since])
        shop.publish(scopes=["all"])
        income = shop.get("/summary?date=2026-11-24").json()["income"]
        assert [made["amount"] for made in income] == amounts, since


def test_tracking_tells_nothing_that_tells_whose_it_is(shop: Shop) -> None:
    """Status, steps and what is due; names and phone masked; no difference between unknown and unreadable codes."""
    row = shop.stored(
        hours=30, customer_name="María  García", customer_phone="+573001234567", recipient_name="Ana Ruiz"
    )
    shop.publish(row, shop.row(customer_phone=None))
    code = row["tracking_code"]
    answer = shop.client.get(f"/api/v1/track/{code[:4]}-{code[4:].lower()}")
    assert answer.json() == {
        "tracking_code": f"{code[:4]}-{code[4:]}",
        "status": "RECEIVED",
        "timeline": [
            {"status": "ANNOUNCED", "at": "2026-11-23T08:00:00.000000Z"},
            {"status": "RECEIVED", "at": "2026-11-23T09:00:00.000000Z"},
        ],
        "due": 2500,
        "lines": [
            {"label": "Tarifa base", "quantity": 1, "unit_amount": 1500, "amount": 1500},
            {
                "label": "Días de bodegaje después de las primeras 24 horas",
                "quantity": 1,
                "unit_amount": 1000,
                "amount": 1000,
            },
        ],
        "total": 2500,
        "next_fee_at": "2026-11-25T09:00:00.000000Z",
        "next_due": 3500,
        "site": "PRINCIPAL",
        "customer": {"name": "M*** G***", "phone": "********67"},
    }
    refusals = set()
    for unknown in ("ZZZZ-ZZZZ", "x", "0000-0000", "%00", "%ff", "O" * 3000):
        answer = shop.client.get(f"/api/v1/track/{unknown}")
        assert answer.status_code == 404, unknown
        refusals.add((answer.json()["type"], answer.json()["detail"]))
    assert len(refusals) == 1
    shop.get("/summary")
    assert shop.client.get(f"/api/v1/track/{row['tracking_code']}").headers["X-Cache"] == "L2"


def test_tracking_is_throttled_by_address(shop: Shop, clock: Clock) -> None:
    """Guessing codes ends soon, for who guesses alone; a proxy's word counts only where it is trusted."""
    throttled = shop.settings.model_copy(update={"throttle_track": "3/minute", "trusted_proxies": ("10.0.0.0/8",)})
    with TestClient(create_app(throttled, clock), client=("10.1.2.3", 5000)) as client:

        def ask(address: str) -> int:
            answer = client.get("/api/v1/track/ZZZZ-ZZZZ", headers={"X-Forwarded-For": address})
            assert (answer.status_code == 429) == ("Retry-After" in answer.headers)
            return answer.status_code

        assert [ask("198.51.100.7") for _ in range(4)] == [404, 404, 404, 429]
        assert ask("203.0.113.9, 198.51.100.7") == 429
        assert ask("198.51.100.8") == 404


@pytest.mark.parametrize("role", list(Role))
def test_every_route_asks_for_its_role(shop: Shop, role: Role) -> None:
    """Without a sign-in 401, but for the public routes; the ADMIN's own are 403 to others."""
    paths = shop.client.get("/openapi.json").json()["paths"]
    public = {"/api/v1/sites", "/api/v1/tariffs", "/api/v1/track/{tracking_code}"}
    for path, operations in paths.items():
        if not path.startswith("/api/v1") or path.endswith("/updates"):
            continue
        for method in operations:
            address = path.replace("{site}", "PRINCIPAL").replace("{tracking_code}", "ZZZZ-ZZZZ")
            address = address.replace("{package_id}", str(uuid.uuid4())).replace("{customer_id}", str(uuid.uuid4()))
            stranger = shop.client.request(method, address)
            assert (stranger.status_code == 401) == (path not in public), path
            status = shop.client.request(method, address, headers=shop.sign_in(role)).status_code
            is_admins = path == "/api/v1/staff" or path.startswith("/api/v1/admin")
            assert (status == 403) == (is_admins and role is not Role.ADMIN), path
            assert status in (200, 403, 404, 422), path


def test_an_admin_sees_how_far_the_projections_are(shop: Shop) -> None:
    """The checkpoint against the log's true end, the pools and the cache."""
    shop.publish(shop.row())
    append = "INSERT INTO change_log (type, at) VALUES ('SiteAdded', %s)"
    with psycopg.connect(shop.settings.postgres_dsn) as conn:
        conn.execute(append, [shop.clock() - timedelta(seconds=90)])
    answer = shop.get("/admin/projections", role=Role.ADMIN).json()
    assert (answer["batch"], answer["lag_changes"], answer["lag_seconds"]) == (2, 1, 90)
    assert {"commands", "queries"} <= {
        pool["name"] for pool in shop.get("/admin/pools", role=Role.ADMIN).json()["items"]
    }
    cache = shop.get("/admin/cache", role=Role.ADMIN).json()
    assert (set(cache["levels"]), cache["redis"] is None) == ({"L1", "L2"}, False)


def test_arrivals_by_the_hour_and_stays(shop: Shop) -> None:
    """By Bogota's clock and the fee's days; of one site; what came earlier, or is still there, has no stay."""
    shop.publish(
        shop.stored(hours=1),  # 09:00
        shop.stored(hours=1, site="NORTE"),
        shop.delivered(hours=3, storage_days=0),  # 07:00
        shop.delivered(hours=24 * 4, storage_days=3),
        shop.delivered(hours=24 * 27, storage_days=3),
        shop.delivered(hours=24 * 28, storage_days=27),
        shop.stored(hours=10.5, status="CANCELLED", position=None, cancelled_at=shop.clock(), storage_days=0),
    )
    answer = shop.get("/arrivals").json()
    by_hour = [(row["hour"], row["count"]) for row in answer["by_hour"]]
    assert by_hour == [(7, 1), (9, 2)], "23:30 was yesterday"
    assert answer["stays"] == [{"days": 0, "count": 1}, {"days": 3, "count": 2}]
    assert answer["stays_since"] == "2026-10-28T05:00:00.000000Z"
    north = shop.get("/arrivals?site=NORTE&date=2026-11-24").json()
    assert (north["by_hour"], north["stays"]) == ([{"hour": 9, "count": 1}], [])
    assert shop.get("/arrivals?date=2026-11-20").json()["by_hour"] == [{"hour": 10, "count": 1}]
    assert shop.get("/arrivals?date=x").status_code == 422
