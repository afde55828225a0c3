"""The listing: filters, orders, pages and counts."""

import uuid
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.auth import Role
from infra.errors import Malformed
from queries import cursors
from queries.cursors import Cursor
from tests.queries.support import Shop


def found(shop: Shop, path: str, rows: dict[str, dict[str, Any]]) -> set[str]:
    """Name the parcels that a listing shows, by the names that the test gave them."""
    codes = shop.codes(path)
    assert len(codes) == len(set(codes))
    return {name for name, row in rows.items() if row["tracking_code"] in codes}


def walk(shop: Shop, path: str) -> list[str]:
    """Follow the cursors to the end; before each further page somebody announces and receives more."""
    codes: list[str] = []
    cursor = ""
    while True:
        answer = shop.get(f"{path}{cursor and '&cursor='}{cursor}")
        assert answer.status_code == 200, answer.text
        codes += [item["tracking_code"].replace("-", "") for item in answer.json()["items"]]
        cursor = answer.json()["next_cursor"] or ""
        if not cursor:
            return codes
        shop.publish(shop.row(announced_at=shop.clock.advance(seconds=1)), shop.stored(hours=0))


def test_an_item_has_every_field_of_the_contract(shop: Shop) -> None:
    """The row is the contract's, with instants in UTC with six decimals, and the fee of this very instant."""
    row = shop.stored(hours=30, other_codes=["AB 1"], recipient_name="Luz Peña")
    shop.publish(row)
    assert shop.items("/packages") == [
        {
            "package_id": str(row["package_id"]),
            "tracking_code": f"{row['tracking_code'][:4]}-{row['tracking_code'][4:]}",
            "guide_number": "GUIA-000001",
            "status": "RECEIVED",
            "site": "PRINCIPAL",
            "position": "A-001",
            "carrier": "Servientrega",
            "other_codes": ["AB 1"],
            "package_type": "NORMAL",
            "condition": "GOOD",
            "recipient_name": "Luz Peña",
            "customer": {"customer_id": str(row["customer_id"]), "name": "Ana Gómez 1", "phone": "+573000000001"},
            "announced_at": "2026-11-23T08:00:00.000000Z",
            "received_at": "2026-11-23T09:00:00.000000Z",
            "delivered_at": None,
            "cancelled_at": None,
            "base_fee": 1500,
            "storage_days": 1,
            "storage_fee": 1000,
            "total": 2500,
            "due": 2500,
            "paid": 0,
            "next_fee_at": "2026-11-25T09:00:00.000000Z",
            "version": 2,
        }
    ]


def test_an_empty_shop_has_an_empty_page(shop: Shop) -> None:
    """Nothing to show is no error, in any order, and an unknown site is a filter that nothing matches."""
    empty: dict[str, Any] = {"items": [], "next_cursor": None, "count": 0, "count_is_minimum": False}
    for sort in ("newest", "oldest", "owed", "days"):
        assert shop.get(f"/packages?sort={sort}").json() == empty
        assert shop.get(f"/packages?sort={sort}&site=NOWHERE&q=ana&min_days=3").json() == empty


def test_each_filter_narrows(shop: Shop) -> None:
    """Every filter alone, and several together; blank ones narrow nothing."""
    rows = {
        "announced": shop.row(announced_at=shop.clock() - timedelta(days=3)),
        "stored": shop.stored(hours=24, position="B-007"),
        "old": shop.stored(hours=24 * 40, site="NORTE", position="B-007"),
        "delivered": shop.delivered(hours=50, storage_days=2),
        "cancelled": shop.row(status="CANCELLED", cancelled_at=shop.clock()),
    }
    rows["same"] = shop.row(customer_id=rows["stored"]["customer_id"])
    shop.publish(*rows.values())
    customer = rows["stored"]["customer_id"]
    midnight = "2026-11-23"  # in Bogota, 05:00 in UTC: 34 hours before now
    for query, names in {
        "": {*rows},
        "?q=&site=&position=&received_from=": {*rows},
        "?status=RECEIVED": {"stored", "old"},
        "?status=RECEIVED&status=CANCELLED&status=RECEIVED": {"stored", "old", "cancelled"},
        "?status=ANNOUNCED&status=RECEIVED&status=DELIVERED&status=CANCELLED": {*rows},
        "?site=NORTE": {"old"},
        "?site=NORTE&status=DELIVERED": set(),
        f"?customer_id={customer}": {"stored", "same"},
        f"?customer_id={customer}&status=ANNOUNCED": {"same"},
        f"?customer_id={uuid.uuid4()}": set(),
        "?position=b007": {"stored", "old"},
        "?position=B-007&site=PRINCIPAL": {"stored"},
        "?position=B-007&status=DELIVERED": set(),
        "?min_days=0": {"stored", "old"},
        "?min_days=1": {"old"},
        "?min_days=39": {"old"},
        "?min_days=40": set(),
        "?min_days=1&status=CANCELLED": set(),
        "?min_stay=0": {"delivered"},
        "?min_stay=2&max_stay=2": {"delivered"},
        "?min_stay=3": set(),
        "?max_stay=1": set(),
        "?min_stay=2&status=RECEIVED": set(),
        "?min_stay=2&sort=days": set(),
        f"?received_from={midnight}": {"stored"},
        f"?received_to={midnight}": {"old", "delivered"},
        "?received_from=2026-11-23T15:00:00Z": {"stored"},
        "?received_from=2026-11-23T15:00:00.000001Z": set(),
        "?received_to=2026-11-23T10:00:00-05:00": {"old", "delivered"},
        f"?announced_from={midnight}": {"stored", "cancelled", "same"},
        f"?announced_to={midnight}": {"announced", "old", "delivered"},
        f"?announced_from=2026-11-01&announced_to={midnight}&status=ANNOUNCED": {"announced"},
        "?sort=days&received_to=2026-11-01": {"old"},
        "?sort=owed&announced_from=2026-11-01": {"stored"},
        "?sort=owed&announced_to=2026-11-01": {"old"},
        "?sort=owed&status=CANCELLED": set(),
    }.items():
        assert found(shop, f"/packages{query}", rows) == names, query
        assert shop.get(f"/packages{query}").json()["count"] == len(names), query


def test_an_incomes_listing_is_what_the_summary_sums(shop: Shop) -> None:
    """For each day, method and person its parcels bring in exactly the summary's amount, whatever was taken back."""
    names = ("plain", "other", "again", "undone", "overnight", "dearer", "by_admin", "free", "north")
    rows = {name: shop.delivered(hours=50, site="NORTE" if name == "north" else "PRINCIPAL") for name in names}
    ana, eva, yesterday = Role.ADMIN, Role.OPERATOR, 11  # hours: before midnight in Bogota
    for name, method, who, amount, hours in (
        ("plain", "CASH", ana, 1500, 1),
        ("other", "NEQUI", eva, 2500, 2),
        ("again", "CASH", ana, 1500, 3),
        ("again", "CASH", ana, -1500, 2),
        ("again", "NEQUI", ana, 1500, 1),
        ("undone", "CASH", eva, 3500, 2),
        ("undone", "CASH", eva, -3500, 1),
        ("overnight", "CASH", eva, 4500, yesterday),
        ("overnight", "CASH", ana, -4500, 1),
        ("dearer", "CASH", eva, 1500, yesterday),
        ("dearer", "CASH", eva, -1500, 2),
        ("dearer", "CASH", eva, 2500, 1),
        ("by_admin", "CASH", eva, 1500, 2),
        ("by_admin", "CASH", ana, -1500, 1),
        ("free", "TRANSFER", eva, 0, 1),
        ("north", "CASH", ana, 700, 1),
    ):
        shop.pay(rows[name], method, who, amount, hours)
    shop.publish(*rows.values())
    day = "paid_from=2026-11-24&paid_to=2026-11-25"
    for query, brought in {
        day: {"plain": 1500, "other": 2500, "again": 1500, "overnight": -4500, "dearer": 1000, "north": 700, "free": 0},
        f"{day}&site=NORTE": {"north": 700},
        f"{day}&payment_method=NEQUI": {"other": 2500, "again": 1500},
        f"{day}&payment_method=NEQUI&payment_staff_id={shop.staff[eva]}": {"other": 2500},
        f"{day}&payment_staff_id={shop.staff[eva]}&sort=oldest": {
            "other": 2500,
            "dearer": 1000,
            "by_admin": 1500,
            "free": 0,
        },
        f"{day}&payment_staff_id={uuid.uuid4()}": {},
        f"{day}&status=RECEIVED": {},
        f"{day}&q=ana&payment_method=NEQUI&customer_id={rows['again']['customer_id']}": {"again": 1500},
        "paid_to=2026-11-24": {"overnight": 4500, "dearer": 1500},
        "payment_method=NEQUI": {"other": 2500, "again": 1500},
    }.items():
        answer = shop.get(f"/packages?{query}").json()
        codes = {row["tracking_code"]: name for name, row in rows.items()}
        found = {codes[item["tracking_code"].replace("-", "")]: item["income"] for item in answer["items"]}
        assert (found, answer["count"]) == (brought, len(brought)), query
    for date, site in (("2026-11-23", "PRINCIPAL"), ("2026-11-24", "PRINCIPAL"), ("2026-11-24", "NORTE")):
        _agree(shop, date, site)


def _agree(shop: Shop, date: str, site: str) -> None:
    """Compare each line of a day's income with the parcels that its listing shows."""
    day = f"site={site}&paid_from={date}&paid_to={date[:-2]}{int(date[-2:]) + 1}"
    income = shop.get(f"/summary?date={date}&site={site}").json()["income"]
    assert income
    for member, parameter in {"method": "payment_method", "staff_id": "payment_staff_id"}.items():
        for value in {line[member] for line in income}:
            amount = sum(line["amount"] for line in income if line[member] == value)
            listed = shop.items(f"/packages?{day}&{parameter}={value}")
            assert sum(item["income"] for item in listed) == amount, (day, value)
    assert sum(item["income"] for item in shop.items(f"/packages?{day}")) == sum(line["amount"] for line in income)


def test_a_listing_by_payment_is_discarded_by_the_payment(shop: Shop) -> None:
    """It shows the next payment and its reversal at once, whichever statuses it is narrowed to."""
    row = shop.stored()
    shop.publish(row)
    query = "/packages?payment_method=CASH"
    for status in ("DELIVERED", "RECEIVED"):
        assert shop.get(f"{query}&status={status}").json()["count"] == 0
    assert shop.items(query) == []
    shop.pay(row, "CASH", Role.OPERATOR, 1500)
    paid = {**row, "status": "DELIVERED", "version": 3, "delivered_at": shop.clock(), "paid": 1500, "position": None}
    shop.publish(paid)
    assert [item["income"] for item in shop.items(f"{query}&status=DELIVERED")] == [1500]
    assert [item["income"] for item in shop.items(query)] == [1500]
    shop.pay(row, "CASH", Role.OPERATOR, -1500)
    shop.publish({**row, "version": 4})
    for status in ("&status=DELIVERED", "&status=RECEIVED", ""):
        assert shop.items(query + status) == [], status


def test_words_are_searched_in_text_and_position(shop: Shop) -> None:
    """All words must match, without accents and case, in any order; the position is found while in storage."""
    rows = {
        "ximena": shop.stored(customer_name="Ximena Núñez", position="B-001", guide_number="XQ-77001"),
        "jose": shop.stored(customer_name="José Áxel", position="B-010", other_codes=["50%_OFF"]),
        "gone": shop.delivered(customer_name="Nubia Max", recipient_name="Tía Rosa", customer_phone="+573119998877"),
    }
    shop.publish(*rows.values())
    for q, names in {
        "nunez": {"ximena"},
        "NÚÑEZ xIm": {"ximena"},
        "x": {"ximena"},
        "xi": {"ximena"},
        "xe": set(),
        "axe": {"jose"},
        "max": {"gone"},
        "rosa nubia": {"gone"},
        "rosa ximena": set(),
        "311 999": {"gone"},
        "7700": {"ximena"},
        "xq77001": {"ximena"},
        "b-0": {"ximena", "jose"},
        "b-001 nunez": {"ximena"},
        "b-001 jose": set(),
        "a": {"jose"},
        "b": {"ximena", "jose"},
        "50%25": {"jose"},
        "%25_o": {"jose"},
        "___": set(),
        "%5C": set(),
        rows["gone"]["tracking_code"][:4] + "-" + rows["gone"]["tracking_code"][4:]: {"gone"},
        rows["gone"]["tracking_code"].lower(): {"gone"},
    }.items():
        assert found(shop, f"/packages?q={q}", rows) == names, q
        for more in (f"&customer_id={rows['jose']['customer_id']}", "&position=b010", "&sort=owed&site=PRINCIPAL"):
            expected = names & {"jose"} if "owed" not in more else names - {"gone"}
            assert found(shop, f"/packages?q={q}{more}", rows) == expected, (q, more)
        for more, within in {
            "announced_from=2020-01-01&sort=oldest": {*rows},
            "announced_to=2020-01-01": set(),
            "received_from=2020-01-01&received_to=2030-01-01": {*rows},
            "received_from=2030-01-01": set(),
            "announced_from=2020-01-01&status=DELIVERED&status=ANNOUNCED": {"gone"},
            "received_from=2020-01-01&status=RECEIVED&site=PRINCIPAL": {"ximena", "jose"},
        }.items():
            answer = shop.get(f"/packages?q={q}&{more}").json()
            assert found(shop, f"/packages?q={q}&{more}", rows) == names & within, (q, more)
            assert answer["count"] == len(names & within), (q, more)


def test_the_orders(shop: Shop) -> None:
    """`newest`, `oldest`, `days`, and `owed`: the dearest first, of equals the longest there, across tariffs."""
    rows = [
        shop.stored(hours=100, base_fee=1500),
        shop.stored(hours=52, base_fee=3500),  # 5,500 too
        shop.stored(hours=124, base_fee=1500, daily_storage=500),
        shop.stored(hours=124.5, base_fee=1500, daily_storage=0),
        shop.stored(hours=1, base_fee=2000, site="NORTE"),
        shop.row(),
    ]
    shop.publish(*rows)
    code = [row["tracking_code"] for row in rows]
    assert shop.codes("/packages") == [code[i] for i in (5, 4, 1, 0, 2, 3)]
    assert shop.codes("/packages?sort=oldest") == [code[i] for i in (3, 2, 0, 1, 4, 5)]
    assert shop.codes("/packages?sort=days") == [code[i] for i in (3, 2, 0, 1, 4)]
    assert [item["due"] for item in shop.items("/packages?sort=owed")] == [5500, 5500, 4000, 2000, 1500]
    assert shop.codes("/packages?sort=owed") == [code[i] for i in (0, 1, 2, 4, 3)]
    assert shop.codes("/packages?sort=owed&q=ana&site=PRINCIPAL") == [code[i] for i in (0, 1, 2, 3)]


@pytest.mark.parametrize("sort", ["newest", "oldest", "owed", "days"])
@pytest.mark.parametrize(
    "filters",
    [
        "",
        "&status=RECEIVED&status=ANNOUNCED",
        "&q=ana",
        "&q=ana&received_from=2020-01-01",
        "&site=PRINCIPAL&min_days=0",
    ],
)
def test_paging_neither_repeats_nor_skips(shop: Shop, sort: str, filters: str) -> None:
    """Each parcel of the first moment is seen once, in order, though others are added and time goes on."""
    rows = [shop.stored(hours=hours % 70, base_fee=1500 + 500 * (hours % 3)) for hours in range(0, 200, 17)]
    rows += [shop.row(announced_at=shop.clock() - timedelta(hours=5)) for _ in range(4)]
    shop.publish(*rows)
    first = shop.codes(f"/packages?sort={sort}{filters}&limit=100")
    seen = walk(shop, f"/packages?sort={sort}{filters}&limit=3")
    assert len(seen) == len(set(seen))
    assert [code for code in seen if code in first] == first


def test_owed_pages_are_merged_exactly(shop: Shop) -> None:
    """Page by page, `owed` is the order that sorting everything gives, with ties across tariffs and at every step."""
    fees = [(1500, 1000), (2000, 1000), (1500, 500), (3500, 0), (2500, 1000), (1700, 300)]
    rows = [shop.stored(hours=12 * n, base_fee=base, daily_storage=daily) for n in range(9) for base, daily in fees]
    shop.publish(*rows)

    def owed(row: dict[str, Any]) -> tuple[int, Any, uuid.UUID]:
        hours = (shop.clock() - row["received_at"]) / timedelta(hours=1)
        days = max(0, -int(-hours // 24) - 1)
        return -(row["base_fee"] + days * row["daily_storage"]), row["received_at"], row["package_id"]

    expected = [row["tracking_code"] for row in sorted(rows, key=owed)]
    for limit in (1, 7, 100):
        codes, cursor = [], ""
        while True:
            answer = shop.get(f"/packages?sort=owed&limit={limit}{cursor and '&cursor='}{cursor}").json()
            codes += [item["tracking_code"].replace("-", "") for item in answer["items"]]
            cursor = answer["next_cursor"] or ""
            if not cursor:
                break
        assert codes == expected, limit


def test_the_cursor_pins_its_instant(shop: Shop) -> None:
    """Later pages of `owed` are priced when the first one was, though a fee has changed since."""
    shop.publish(*[shop.stored(hours=23.5 + n) for n in range(3)])
    first = shop.get("/packages?sort=owed&limit=2").json()
    shop.clock.advance(hours=30)
    last = shop.get(f"/packages?sort=owed&limit=2&cursor={first['next_cursor']}").json()
    assert [item["due"] for item in first["items"] + last["items"]] == [2500, 2500, 1500]
    assert last["next_cursor"] is None


def test_counts_are_exact_up_to_ten_thousand(shop: Shop) -> None:
    """The projection keeps the count by status and site; others are counted to 10,000 and then called a minimum."""
    shop.publish(shop.row(customer_name="Eva Ruiz"), shop.stored())
    shop.conn.execute("""
        INSERT INTO package_listing SELECT ('01930000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
            l.version, 'X' || n, 'MANY' || n, 'MANY' || n, '{}', '{}', l.status, l.site, NULL, l.carrier, NULL, NULL,
            'Eva Ruiz', l.customer_id, 'Eva Ruiz', NULL, NULL, NULL, l.announced_at - n * interval '1 second',
            NULL, NULL, NULL, 1500, 1000, 0, 0, 1500, 0
        FROM generate_series(1, 9999) AS n, package_listing AS l WHERE l.status = 'ANNOUNCED';
        INSERT INTO package_search SELECT package_id, announced_at, ' eva ruiz' FROM package_listing
        ON CONFLICT DO NOTHING""")
    customer = f"customer_id={shop.rows[next(iter(shop.rows))]['customer_id']}"
    shop.publish(shop.stored())
    for query, count in {"": (10_002, False), "status=ANNOUNCED": (10_000, False), "sort=owed": (2, False)}.items():
        assert _count(shop, query) == count, query
    within = "q=eva&announced_to=2027-01-01"
    for query in (
        customer,
        "q=eva",
        "q=eva+ruiz&status=ANNOUNCED",
        "announced_from=2026-01-01&status=ANNOUNCED",
        within,
    ):
        assert _count(shop, query) == (10_000, False), query
    shop.publish(shop.row(customer_name="Eva Ruiz", customer_id=uuid.UUID(customer[12:])))
    for query in (
        customer,
        "q=eva",
        "q=eva+ruiz&status=ANNOUNCED",
        "q=eva&site=PRINCIPAL",
        "announced_to=2027-01-01",
        within,
    ):
        assert _count(shop, query) == (10_000, True), query
    assert _count(shop, "status=ANNOUNCED") == (10_001, False)
    for query in ("q=eva", within):
        answer = shop.get(f"/packages?{query}&limit=3&sort=oldest").json()
        assert [item["guide_number"] for item in answer["items"]] == ["MANY9999", "MANY9998", "MANY9997"]


def _count(shop: Shop, query: str) -> tuple[int, bool]:
    answer = shop.get(f"/packages?limit=1&{query}").json()
    return answer["count"], answer["count_is_minimum"]


BAD = [
    ("q=%00", 422),
    ("q=%ff", 200),
    ("q=%ED%A0%80", 200),
    ("q=" + "a" * 101, 422),
    ("q=" + "+".join(map(str, range(13))), 422),
    ("limit=0", 422),
    ("limit=101", 422),
    ("limit=99999999999999999999", 422),
    ("limit=1.5", 422),
    ("min_days=-1", 422),
    ("min_days=9223372036854775807", 422),
    ("min_days=36500", 200),
    ("min_stay=-1", 422),
    ("max_stay=36501", 422),
    ("paid_from=2026-11-24T10:00:00", 422),
    ("paid_to=2026-02-30", 422),
    ("payment_method=GOLD", 422),
    ("payment_staff_id=7", 422),
    ("payment_method=CASH&paid_from=1900-01-02&paid_to=9000-01-01&sort=owed", 200),
    ("received_from=0001-01-01", 422),
    ("received_from=9999-12-31", 422),
    ("received_from=1900-01-02&received_to=9000-01-01&sort=owed&min_days=36500", 200),
    ("announced_to=2026-11-24T10:00:00", 422),
    ("announced_to=1764000000", 422),
    ("announced_from=2026-02-30", 422),
    ("status=LOST", 422),
    ("sort=cheapest", 422),
    ("customer_id=7", 422),
    ("site=%27", 422),
    ("position=%00", 422),
    ("stauts=RECEIVED", 422),
    ("cursor=%00", 400),
    ("cursor=x", 400),
    ("cursor=.eJw.x", 400),
    ("cursor=" + "x" * 2001, 422),
]


def test_every_bad_parameter_has_its_status(shop: Shop) -> None:
    """400 for a cursor that can't be read, 422 for what can't be accepted, and never 500."""
    for query, status in BAD:
        answer = shop.get(f"/packages?{query}")
        assert answer.status_code == status, (query, answer.text)
        assert ("errors" in answer.json()) == (status == 422)


def test_a_cursor_belongs_to_its_filters(shop: Shop) -> None:
    """With other filters, or in another order, it is refused; with another limit it goes on."""
    shop.publish(*[shop.row() for _ in range(3)])
    cursor = shop.get("/packages?limit=1").json()["next_cursor"]
    assert shop.get(f"/packages?limit=2&cursor={cursor}").status_code == 200
    for other in ("status=ANNOUNCED", "sort=oldest", "q=ana"):
        assert shop.get(f"/packages?limit=1&{other}&cursor={cursor}").status_code == 400
    assert shop.get(f"/packages?limit=1&cursor={cursor[:-2]}AA").status_code == 400


@given(st.text(max_size=60))
def test_nobody_makes_up_a_cursor(text: str) -> None:
    """Whatever the text is, it is refused as malformed."""
    written = cursors.write(Cursor(("key",)), {"q": "a"}, "secret")
    assert cursors.read(written, {"q": "a"}, "secret") == Cursor(("key",))
    for garbled in (text, "x" + written):
        with pytest.raises(Malformed):
            cursors.read(garbled, {"q": "a"}, "secret")
