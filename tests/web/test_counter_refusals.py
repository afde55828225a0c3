"""What the counter is sent and nobody's browser would send: refused or passed over, and never a fault."""

import uuid

import httpx2
import pytest

from tests.web.shop import PASSWORD, Shop

NOBODY = str(uuid.UUID(int=0))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"action": "add", "q": "no id"}, 200),
        ({"action": "add-all", "q": "no id"}, 200),
        ({"action": "choose", "q": "no id"}, 200),
        ({"action": "method", "q": "BARTER"}, 200),
        ({"action": "resume", "q": "never seen"}, 200),
        ({"action": "nonsense"}, 200),
        ({"q": "\x00"}, 200),
        ({"q": "\x1d-no separator"}, 200),
        ({"action": "add", "q": NOBODY}, 404),
        ({"action": "choose", "q": NOBODY, "guide": "ABC-12345"}, 404),
        ({"action": "deliver", "package_id": NOBODY}, 422),
        ({"package_id": "no id", "due": "0"}, 422),
    ],
)
def test_a_strange_step(shop: Shop, sent: dict[str, str], status: int) -> None:
    """Ids that are none, parcels without what is due, letters that nobody types."""
    headers = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html", "HX-Request": "true"}
    with httpx2.Client(base_url=shop.address, headers=headers, timeout=30) as browser:
        browser.post("/entrar", data={"username": "oscar", "password": PASSWORD})
        assert browser.post("/mostrador", data=sent).status_code == status
