"""One parcel: all that is known of it, its history, its fee, and the codes that find it."""

import json
import uuid
from datetime import timedelta
from typing import Any

from infra.auth import Role
from tests.queries.support import Shop


def test_one_parcel_with_its_payments_and_photos(shop: Shop) -> None:
    """The listing's row, and what only concerns this parcel; an id that is none is 404."""
    row = shop.delivered(observations="frágil")
    shop.publish(row)
    listed = shop.items("/packages")[0]
    pay = """INSERT INTO payment_listing VALUES (%s, %s, 'PRINCIPAL', %s, 'NEQUI', 1000, 1500, 'goodwill', 'Luz', %s,
        false)"""
    payment, staff = uuid.uuid4(), shop.staff[Role.OPERATOR]
    shop.conn.execute(pay, [payment, row["package_id"], staff, shop.clock()])
    answer = shop.get(f"/packages/{row['package_id']}").json()
    assert listed.items() <= answer.items()
    assert {name: answer[name] for name in answer.keys() - listed.keys()} == {
        "observations": "frágil",
        "cancellation_reason": None,
        "photos": [],
        "payments": [
            {
                "payment_id": str(payment),
                "site": "PRINCIPAL",
                "method": "NEQUI",
                "amount": 1000,
                "due": 1500,
                "amount_reason": "goodwill",
                "collected_by": "Luz",
                "staff_id": str(staff),
                "at": "2026-11-24T15:00:00.000000Z",
            }
        ],
    }
    for missing in (uuid.uuid4(), "7", "%00", "x" * 5000):
        for part in ("", "/history", "/fee"):
            assert shop.get(f"/packages/{missing}{part}").status_code == 404, missing


def test_the_tag_is_version_and_fee_step(shop: Shop) -> None:
    """It changes with the version and with each step of the fee, and stands still once the parcel has left."""
    row = shop.stored(hours=24 * 3)
    left = shop.delivered(version=7, storage_days=4, hours=24 * 5)
    announced = shop.row()
    shop.publish(row, left, announced)

    def tags() -> list[str]:
        return [shop.get(f"/packages/{r['package_id']}").headers["ETag"] for r in (row, left, announced)]

    assert tags() == ['"2.2"', '"7.4"', '"1.0"']
    shop.clock.advance(seconds=1)
    assert tags() == ['"2.3"', '"7.4"', '"1.0"']


def test_the_history_is_oldest_first(shop: Shop) -> None:
    """Each accepted command, with who did it; what nobody signed in for has no actor."""
    row = shop.row()
    shop.publish(row)
    append = "INSERT INTO change_log (package_id, type, actor, version, data, at) VALUES (%s, %s, %s, %s, %s, %s)"
    operator = shop.staff[Role.OPERATOR]
    changes: list[list[Any]] = [
        ["PackageAnnounced", None, 1, {"person": {"name": "Ana"}}],
        ["PackageReceived", operator, 2, {}],
    ]
    for kind, actor, version, data in changes:
        shop.conn.execute(append, [row["package_id"], kind, actor, version, json.dumps(data), shop.clock()])
    assert shop.items(f"/packages/{row['package_id']}/history") == [
        {
            "type": "PackageAnnounced",
            "at": "2026-11-24T15:00:00.000000Z",
            "actor": None,
            "version": 1,
            "data": {"person": {"name": "Ana"}},
        },
        {
            "type": "PackageReceived",
            "at": "2026-11-24T15:00:00.000000Z",
            "actor": {"staff_id": str(operator), "name": "Operator"},
            "version": 2,
            "data": {},
        },
    ]


def test_the_fee_is_explained_at_any_instant(shop: Shop) -> None:
    """The table of the domain, line by line; the lines add up."""
    row = shop.stored(received_at=shop.clock())
    shop.publish(row)
    for seconds, days in {
        0: 0,
        86400: 0,
        86401: 1,
        47 * 3600: 1,
        172800: 1,
        172801: 2,
        259200: 2,
        720 * 3600: 29,
    }.items():
        at = (shop.clock() + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
        fee = shop.get(f"/packages/{row['package_id']}/fee?at={at}").json()
        assert [(line["quantity"], line["amount"]) for line in fee["lines"]] == [(1, 1500), (days, 1000 * days)]
        assert fee["total"] == fee["due"] == sum(line["amount"] for line in fee["lines"])
        assert fee["next_fee_at"] > fee["at"] or seconds % 86400 == 0
    before = shop.get(f"/packages/{row['package_id']}/fee?at=2026-11-01").json()
    assert (before["total"], before["lines"][1]["quantity"]) == (1500, 0)
    assert shop.get(f"/packages/{row['package_id']}/fee?at=8999-12-31").status_code == 200
    assert shop.get(f"/packages/{row['package_id']}/fee?at=yesterday").status_code == 422


def test_outside_storage_the_fee_stands_still(shop: Shop) -> None:
    """What has left keeps the fee it left with and owes nothing; an announced one is a quote."""
    left = shop.delivered(storage_days=3, storage_fee=3000, total=4500)
    announced = shop.row()
    shop.publish(left, announced)
    for row, lines, total in ((left, [1500, 3000], 4500), (announced, [1500], 1500)):
        fee = shop.get(f"/packages/{row['package_id']}/fee?at=2027-11-24").json()
        assert [line["amount"] for line in fee["lines"]] == lines
        assert (fee["total"], fee["due"], fee["next_fee_at"]) == (total, 0, None)


def test_any_code_finds_its_parcels(shop: Shop) -> None:
    """Exactly, without spaces, dashes and case; each says by what, and the most wanted come first."""
    stored = shop.stored(position="B-007", guide_number="XX-123", other_codes=["ean 77-1"])
    phone = stored["customer_phone"]
    whose = {"customer_phone": phone, "customer_id": stored["customer_id"]}
    announced = shop.row(**whose, announced_at=shop.clock() - timedelta(days=20))
    left = [shop.delivered(**whose, hours=hours) for hours in (90, 80)]
    twice = shop.row(guide_number="SAME-1", other_codes=["SAME 1", "same-1"])
    shop.publish(stored, announced, *left, twice)

    def found(q: str) -> list[tuple[str, str]]:
        items = shop.items(f"/lookup?q={q}")
        return [(item["tracking_code"].replace("-", ""), item["matched_by"]) for item in items]

    code = stored["tracking_code"]
    for q in (code, code.lower(), f"{code[:4]}-{code[4:]}", f"%20{code[:4]}%20{code[4:]}%20"):
        assert found(q) == [(code, "tracking_code")], q
    for q in ("XX-123", "xx123", "x x 1 2 3"):
        assert found(q) == [(code, "guide_number")], q
    for q in ("EAN771", "ean+77-1"):
        assert found(q) == [(code, "other_code")], q
    for q in ("b007", "B-007", "B+007"):
        assert found(q) == [(code, "position")], q
    rows = [stored, announced, left[1], left[0]]
    for q in (phone[3:], "300+000+0001", "%2B57 300-000-0001", "57" + phone[3:]):
        assert found(q) == [(row["tracking_code"], "phone") for row in rows], q
    assert found("same1") == [(twice["tracking_code"], "guide_number")]
    for q in ("XX-12", "b00", "%25", "%ff", "----", "+57"):
        assert found(q) == [], q
    for q in ("", "%00", "%20", "x" * 101):
        assert shop.get(f"/lookup?q={q}").status_code == 422, q
    assert shop.get("/lookup").status_code == 422


def test_a_lookup_finds_fifty_at_most(shop: Shop) -> None:
    """A business with many parcels doesn't fill the counter's screen."""
    whose = {"customer_phone": "+573001112233", "customer_id": uuid.uuid4()}
    shop.publish(*[shop.row(**whose) for _ in range(51)], shop.stored(**whose))
    items = shop.items("/lookup?q=3001112233")
    assert len(items) == 50
    assert items[0]["status"] == "RECEIVED"
