"""A photo: for whoever may see the parcel, kept by their browser alone, and never changed."""

import uuid

from infra.auth import Role
from tests.pictures import taken
from tests.queries.support import Shop

INSERT = """
INSERT INTO package_photos (package_id, media_type, object_key, bytes, staff_id, at)
VALUES (%s, 'image/jpeg', 'a/b.jpg', 1, %s, now()) RETURNING photo_id
"""

PACKAGE = """
WITH customer AS (INSERT INTO customers (name) VALUES ('Ana') RETURNING customer_id)
INSERT INTO packages
    (guide_number, tracking_code, customer_id, recipient_name, site_id, status, tariff_id, announced_at)
SELECT 'GUIDE-1', '22222222', customer_id, 'Ana', (SELECT site_id FROM sites), 'ANNOUNCED',
       (SELECT tariff_id FROM tariffs), now()
FROM customer RETURNING package_id
"""


def add(shop: Shop) -> uuid.UUID:
    """Write a photo's row; its file isn't there yet."""
    package = shop.conn.execute(PACKAGE).fetchone()
    assert package is not None
    photo = shop.conn.execute(INSERT, [package[0], shop.staff[Role.OPERATOR]]).fetchone()
    assert photo is not None
    photo_id: uuid.UUID = photo[0]
    return photo_id


def test_a_photo_is_sent_as_it_is_kept(shop: Shop) -> None:
    """With its own tag, for good, and as nothing that could run."""
    path = f"/photos/{add(shop)}"
    assert shop.get(path).status_code == 404, "somebody took it out of its store"
    file = shop.settings.data_dir / "photos/a/b.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(taken())
    answer = shop.get(path)
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, taken(), "image/jpeg")
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    again = shop.get(path, headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert shop.get(path, headers={"If-None-Match": '"another"'}).status_code == 200


def test_who_may_see_it(shop: Shop) -> None:
    """Every member of staff, and nobody else; what there is none of is not found."""
    path = f"/photos/{add(shop)}"
    assert shop.client.get(f"/api/v1{path}").status_code == 401
    for missing in (uuid.uuid4(), "7"):
        assert shop.get(f"/photos/{missing}").status_code == 404
    file = shop.settings.data_dir / "photos/a/b.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(taken())
    assert shop.get(path).status_code == 200
