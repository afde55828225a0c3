"""The listing: filters, orders, pages and counts."""

from tests.queries.support import Shop


def test_newest_first(shop: Shop) -> None:
    """The listing begins with what was announced last."""
    rows = [shop.row(), shop.stored(hours=30), shop.delivered()]
    shop.publish(*rows)
    answer = shop.get("/packages")
    assert answer.status_code == 200, answer.text
    print(answer.json(), answer.headers)
    for sort in ("oldest","owed","days"):
        a=shop.get("/packages?sort="+sort); print(a.status_code, a.text)
    for f in ("q=gomez","q=go 30","site=PRINCIPAL","status=RECEIVED&status=ANNOUNCED","min_days=1","position=a002","received_from=2026-01-01","customer_id=%s"%rows[0]["customer_id"]):
        for sort in ("newest","oldest","owed","days"):
            a=shop.get(f"/packages?limit=1&sort={sort}&{f}"); print(f, a.status_code, a.text[-200:])
            assert a.status_code==200
            if c:=a.json()["next_cursor"]:
                a=shop.get(f"/packages?limit=1&sort={sort}&{f}&cursor={c}"); print(f, a.status_code, a.text[-200:])
                assert a.status_code==200
