"""What a process answers from its memory is what the long way through FastAPI would answer, or it isn't answered."""

import asyncio
import contextlib
import gc
import gzip
import itertools
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from redis import Redis
from starlette.datastructures import State
from starlette.types import Receive, Scope, Send

from db import announcements
from db.page_cache import EPOCH_LEASE, HEARTBEAT
from infra.auth import SESSION_COOKIE, Role, Session, encode_session
from infra.http import Fronted
from infra.settings import Settings
from queries import hot_pages
from queries.api import create_app
from queries.hot_pages import HotPages
from tests.queries.support import EPOCH, Shop
from tests.service import serving
from tests.support import wait_until

PAGES = ["/packages", "/packages?status=RECEIVED&limit=2&sort=owed", "/summary", "/sites", "/tariffs"]
QUERIES = [
    "",
    "?status=RECEIVED&status=ANNOUNCED",
    "?status=ANNOUNCED&status=RECEIVED&limit=50",
    "?limit=50&q=",
    "?q=gomez&sort=oldest",
    "?q=G%C3%93MEZ&sort=oldest",
    "?sort=owed",
    "?sort=owed&limit=1",
    "?min_days=0",
    "?site=PRINCIPAL&",
    "?unknown=1",
    "?limit=0",
    "?status=NONE",
    "?cursor=",
    "?cursor=x",
]
ENCODINGS = [None, "gzip", "br, gzip;q=0.5", "gzip;q=0", "*", "identity;q=1, gzip;q=0.1"]


@pytest.fixture
def heart(shop: Shop) -> Iterator[threading.Event]:
    """A projector that vouches for the pages until the event is set."""
    stopped = threading.Event()

    def beat() -> None:
        with Redis.from_url(shop.settings.redis_dsn) as redis:
            while not stopped.wait(HEARTBEAT / 5):
                redis.publish(shop.channel, EPOCH)

    thread = threading.Thread(target=beat)
    thread.start()
    yield stopped
    stopped.set()
    thread.join()


@pytest.fixture
def pages(shop: Shop, heart: threading.Event) -> HotPages:
    """The memory of the process under test, once it hears the heartbeat."""
    found: HotPages = shop.client.app.state.hot_pages  # type: ignore[attr-defined]
    wait_until(lambda: found.announcements.current is not None and shop.client.app.state.connections.watcher.is_hearing)  # type: ignore[attr-defined]
    assert not heart.is_set()
    return found


def outcome(shop: Shop, path: str, headers: dict[str, str] | None = None, role: Role = Role.VIEWER) -> str:
    answer = shop.get(path, headers, role)
    assert answer.status_code in {200, 304}, answer.text
    return str(answer.headers["X-Cache"])


def test_a_known_request_is_answered_from_memory(shop: Shop, pages: HotPages) -> None:
    """The third time it comes, nobody has parsed it."""
    shop.publish(shop.stored())
    asked: list[str] = []
    answer = pages.answer

    def noting(scope: Any) -> Any:  # noqa: ANN401
        found = answer(scope)
        asked.append("front" if found else "long way")
        return found

    shop.client.app.state.front = noting  # type: ignore[attr-defined]
    assert [outcome(shop, "/packages") for _ in range(3)] == ["MISS", "L1", "L1"]
    assert asked == ["long way", "front", "front"]


def raw(client: socket.socket, path: str, headers: dict[str, str], last: str = "") -> tuple[list[str], bytes]:
    """Ask over a connection: the lines of the answer's head, but for what every answer has anew, and its body."""
    said = {"Host": "here", "X-Request-Id": "the-same", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    client.sendall(f"GET /api/v1{path} HTTP/1.1\r\n{lines}{last}\r\n".encode())
    with client.makefile("rb") as stream:
        head = [line.decode() for line in iter(lambda: stream.readline().rstrip(), b"")]
        length = next((int(line.split()[1]) for line in head if line.startswith("content-length")), 0)
        return [line for line in head if not line.startswith(("date: ", "connection: "))], stream.read(length)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_written_at_once_is_what_the_application_sends(
    shop: Shop, heart: threading.Event, encoding: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our server writes a known answer itself, without a call of the application: the same bytes, head and all."""
    shop.publish(*(shop.stored(hours=hours) for hours in range(1, 40)), scopes=["reference"])
    app, calls = create_app(shop.settings, shop.clock), 0
    called = Fronted.__call__

    async def counting(app: Fronted, scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        await called(app, scope, receive, send)

    monkeypatch.setattr(Fronted, "__call__", counting)
    sent = shop.sign_in() | ({"Accept-Encoding": encoding} if encoding else {})
    with serving(app) as url:
        state = app.state
        wait_until(lambda: state.hot_pages.announcements.current is not None and state.connections.watcher.is_hearing)
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        for path in PAGES:
            with socket.create_connection(place, timeout=20) as client:
                first, _ = raw(client, path, sent)
                etag = next(line.partition(": ")[2] for line in first if line.startswith("etag"))
                raw(client, path, sent)
                before = calls
                at_once = [raw(client, path, sent), raw(client, path, sent | {"If-None-Match": etag})]
                assert calls == before
                assert [head[0] for head, _ in at_once] == ["HTTP/1.1 200 OK", "HTTP/1.1 304 Not Modified"]
                assert "x-cache: L1" in at_once[0][0]
            for headers, found in zip((sent, sent | {"If-None-Match": etag}), at_once, strict=True):
                with socket.create_connection(place, timeout=20) as client:
                    assert raw(client, path, headers, "Connection: close\r\n") == found
            assert calls == before + 2
    assert not heart.is_set()


@contextlib.contextmanager
def the_long_way(shop: Shop) -> Iterator[None]:
    """Leave everything to FastAPI's routing."""
    state: State = shop.client.app.state  # type: ignore[attr-defined]
    front, bypass = state.front, state.bypass
    state.front = state.bypass = None
    yield
    state.front, state.bypass = front, bypass


def headers_of(answer: Any) -> list[tuple[str, str]]:  # noqa: ANN401
    return [(name, value) for name, value in answer.headers.multi_items() if name != "x-cache"]


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.usefixtures("pages")
def test_a_hot_answer_is_the_slow_answer(shop: Shop, role: Role | None, encoding: str | None) -> None:
    """Byte by byte and header by header, for 200 and 304, for every role, order of filters, parameter and encoding."""
    shop.publish(*(shop.stored(hours=hours) for hours in range(1, 40)), shop.row(), scopes=["reference"])
    seen = set()
    paths = [*(f"/packages{query}" for query in QUERIES), *PAGES, "/staff", "/customers?q=ana", "/nowhere"]
    for path, tagged in itertools.product(paths, (False, True)):
        sent = {"X-Request-Id": "the-same", **(shop.sign_in(role) if role else {})}
        sent |= {"Accept-Encoding": encoding} if encoding else {"Accept-Encoding": ""}

        def ask(sent: dict[str, str] = sent, path: str = path) -> Any:  # noqa: ANN401
            return shop.client.get(f"/api/v1{path}", headers=sent)

        if tagged and (tag := ask().headers.get("ETag")):
            sent["If-None-Match"] = tag
        for _ in range(2):
            hot = ask()
        with the_long_way(shop):
            slow = ask()
        assert (hot.status_code, hot.content, headers_of(hot)) == (slow.status_code, slow.content, headers_of(slow))
        seen.add((hot.status_code, hot.headers.get("X-Cache")))
    assert {(200, "L1"), (304, "L1")} <= seen
    assert (401, None) in seen if role is None else (422, None) in seen


ODD = [{}, {"If-None-Match": "*"}, {"Consistency-Token": "none of ours"}, {"Accept-Encoding": "gzip"}]


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.usefixtures("pages")
def test_a_direct_answer_is_the_slow_answer(shop: Shop, role: Role | None) -> None:
    """Byte by byte, header by header, past both caches: what is known, unknown, repeated, invalid or refused."""
    shop.publish(*(shop.stored(hours=hours) for hours in range(1, 40)), shop.row())
    code = shop.get("/packages").json()["items"][0]["tracking_code"]
    token = shop.get("/packages").headers["Consistency-Token"]
    lookups = [f"?q={code}", f"?q={code.lower()}", "", "?q=", "?q=%00", f"?q={code}&q=x", f"?q={code}&w=1", "?q=%2B57"]
    paths = [*(f"/packages{query}" for query in QUERIES), *(f"/lookup{query}" for query in lookups)]
    paths += [
        "/packages?limit=5&limit=6",
        "/packages?status=RECEIVED&status=RECEIVED",
        "/packages?q=a%00",
        "/packages/",
    ]
    seen = set()
    for path, odd in itertools.product(paths, [*ODD, {"Consistency-Token": token}]):
        sent = {"X-Request-Id": "the-same", "Cache-Control": "no-store", **(shop.sign_in(role) if role else {}), **odd}
        answers = []
        for way in (contextlib.nullcontext(), the_long_way(shop)):
            with way:
                answers.append(shop.client.get(f"/api/v1{path}", headers=sent))
        short, slow = ((a.status_code, a.content, sorted(a.headers.multi_items())) for a in answers)
        assert short == slow
        seen.add(short[0])
    assert seen == ({401} if role is None else {200, 304, 400, 422})


@pytest.mark.usefixtures("pages")
def test_who_is_known_goes_past_the_routing(shop: Shop) -> None:
    """From the second time they ask, whatever it is; who isn't, or asks for what isn't plain, doesn't."""
    shop.publish(shop.stored())
    bypass, found = shop.client.app.state.bypass, []  # type: ignore[attr-defined]

    def noting(scope: Any) -> Any:  # noqa: ANN401
        found.append(bypass(scope) is not None)
        return bypass(scope)

    shop.client.app.state.bypass = noting  # type: ignore[attr-defined]
    for path in (
        "/packages?limit=1",
        "/packages?limit=2",
        "/lookup?q=7K3M",
        "/lookup?q=7K3M&q=x",
        "/packages?x=1",
        "/sites",
    ):
        shop.get(path, {"Cache-Control": "no-store"})
    shop.client.get("/api/v1/packages?limit=3")
    assert found == [False, True, True, False, False, False, False]


@pytest.mark.usefixtures("pages")
def test_each_encoding_has_a_tag_of_its_own(shop: Shop) -> None:
    """One form's tag isn't the other's; both say that they vary, and hold the same page."""
    shop.publish(*(shop.stored() for _ in range(10)))
    raw: list[Any] = []
    for encoding in ("identity", "gzip"):
        with shop.client.stream(
            "GET", "/api/v1/packages", headers=shop.sign_in() | {"Accept-Encoding": encoding}
        ) as answer:
            raw.append((answer.headers, b"".join(answer.iter_raw())))
    (plain, page), (packed, squeezed) = raw
    assert gzip.decompress(squeezed) == page
    assert packed["ETag"] == f'{plain["ETag"][:-1]}-gzip"'
    assert plain["Vary"] == packed["Vary"] == "Accept-Encoding"
    assert packed["Content-Encoding"] == "gzip"
    for tag, status in ((plain["ETag"], 200), (packed["ETag"], 304)):
        headers = {"Accept-Encoding": "gzip", "If-None-Match": tag}
        assert [shop.get("/packages", headers).status_code for _ in range(2)] == [status, status]


@pytest.mark.usefixtures("pages")
def test_a_page_is_for_those_who_may_see_it(shop: Shop) -> None:
    """A page that an ADMIN has made hot stays closed to others; a public one is open without a sign-in."""
    shop.publish(shop.stored(), scopes=["reference"])
    for path in ("/packages", "/sites"):
        assert [outcome(shop, path, role=Role.ADMIN) for _ in range(2)] == ["MISS", "L1"]
    assert shop.client.get("/api/v1/packages").status_code == 401
    assert shop.client.get("/api/v1/sites").headers["X-Cache"] == "L1"
    for path in ("/packages", "/sites"):
        for wrong in ("Bearer x", "Basic x", "", f"{shop.sign_in()['Authorization']}x"):
            assert shop.client.get(f"/api/v1{path}", headers={"Authorization": wrong}).status_code == 401, wrong


def test_a_write_is_seen_at_once(shop: Shop, pages: HotPages) -> None:
    """A page that can show the parcel is computed again, and no other."""
    row = shop.stored()
    shop.publish(row)
    for path in ("/packages", "/packages?status=CANCELLED"):
        assert [outcome(shop, path) for _ in range(2)] == ["MISS", "L1"]
    batch = shop.publish({**row, "version": 3})
    heard_of(pages, batch)
    assert outcome(shop, "/packages?status=CANCELLED") == "L1"
    answer = shop.get("/packages")
    assert (answer.headers["X-Cache"], answer.json()["items"][0]["version"]) == ("MISS", 3)


def heard_of(pages: HotPages, batch: int) -> None:
    """Wait until the process has heard of a batch, of which the test itself is told earlier."""
    wait_until(lambda: not (view := pages.announcements.current) or not view.holds(["all"], batch - 1))


def test_a_token_is_honoured(shop: Shop, pages: HotPages) -> None:
    """A hot page of an earlier batch is passed by, one that is good enough isn't, and nonsense is refused."""
    batch = shop.publish(shop.stored())
    path = "/packages?status=CANCELLED"
    assert [outcome(shop, path, shop.token(batch=batch)) for _ in range(2)] == ["MISS", "L1"]
    later = shop.publish(shop.row())
    heard_of(pages, later)
    assert outcome(shop, path, shop.token(batch=batch)) == "L1"
    assert outcome(shop, path, shop.token(batch=later)) == "MISS"
    assert outcome(shop, path, shop.token(batch=later)) == "L1"
    for bad in ({"Consistency-Token": "x"}, shop.token(batch=batch, incarnation="another")):
        assert shop.get(path, bad).status_code == 400


@pytest.mark.usefixtures("pages")
def test_no_store_goes_past_memory(shop: Shop) -> None:
    """It neither takes a page from there nor leaves one."""
    shop.publish(shop.stored())
    assert outcome(shop, "/packages", {"Cache-Control": "No-Store"}) == "BYPASS"
    assert [outcome(shop, "/packages") for _ in range(2)] == ["MISS", "L1"]
    assert outcome(shop, "/packages", {"Cache-Control": "max-age=0, No-Store"}) == "BYPASS"


@pytest.mark.usefixtures("pages")
def test_time_ends_a_hot_page(shop: Shop) -> None:
    """At exactly next_fee_at it holds, a microsecond later neither the page nor its tag does."""
    shop.publish(shop.stored(hours=24 - 10 / 3600))
    tag = [shop.get("/packages") for _ in range(2)][1].headers["ETag"]
    shop.clock.advance(seconds=10)
    answer = shop.get("/packages", {"If-None-Match": tag})
    assert (answer.status_code, answer.headers["X-Cache"]) == (304, "L1")
    shop.clock.advance(microseconds=1)
    answer = shop.get("/packages", {"If-None-Match": tag})
    assert (answer.status_code, answer.headers["X-Cache"]) == (200, "MISS")
    assert answer.json()["items"][0]["due"] == 2500


@pytest.mark.usefixtures("pages")
def test_a_page_lives_for_cache_ttl(shop: Shop) -> None:
    """However often it is asked for."""
    shop.publish(shop.delivered())
    path = "/packages?status=DELIVERED"
    assert [outcome(shop, path) for _ in range(2)] == ["MISS", "L1"]
    shop.clock.advance(seconds=shop.settings.cache_ttl)
    assert outcome(shop, path) == "L1"
    shop.redis.delete(*shop.redis.keys("*:page:*"))
    shop.clock.advance(microseconds=1)
    assert outcome(shop, path) == "MISS"


@pytest.mark.usefixtures("pages")
def test_the_summary_of_today_is_another_one_after_midnight(shop: Shop) -> None:
    """The same request then asks for another day."""
    shop.clock.now = shop.clock.now.replace(hour=4, minute=59, second=55)
    shop.publish(shop.row(), scopes=["reference"])
    assert [outcome(shop, "/summary") for _ in range(2)] == ["MISS", "L1"]
    shop.clock.advance(seconds=5)
    assert outcome(shop, "/summary") == "MISS"


def test_a_silent_projector_is_not_trusted(
    shop: Shop, pages: HotPages, heart: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second after its last heartbeat no page in memory is believed, though the connection lives."""
    shop.publish(shop.stored())
    assert [outcome(shop, "/packages") for _ in range(2)] == ["MISS", "L1"]
    assert EPOCH_LEASE <= 1.0
    monkeypatch.setattr(announcements, "EPOCH_LEASE", EPOCH_LEASE)
    heart.set()
    wait_until(lambda: pages.announcements.current is None)
    assert outcome(shop, "/packages") == "L2"  # Redis says that somebody vouches: the epoch of tests has no end


def test_a_lost_subscription_ends_all_belief(shop: Shop, pages: HotPages) -> None:
    """What was announced meanwhile is unknown, so pages from before are not believed afterwards either."""
    row = shop.stored()
    shop.publish(row)
    assert [outcome(shop, "/packages") for _ in range(2)] == ["MISS", "L1"]
    before = pages.announcements.view
    shop.redis.client_kill_filter(_type="pubsub")
    wait_until(lambda: pages.announcements.view is not before)
    wait_until(lambda: pages.announcements.current is not None)
    assert [outcome(shop, "/packages") for _ in range(2)] == ["L2", "L1"]


def test_another_epoch_ends_all_belief(shop: Shop, pages: HotPages) -> None:
    """A new leader may have announced what we weren't told."""
    shop.publish(shop.stored())
    assert [outcome(shop, "/packages") for _ in range(2)] == ["MISS", "L1"]
    pages.announcements.hear("another", time.monotonic())
    assert outcome(shop, "/packages") == "L2"


def test_pages_discarded_by_hand_are_gone_here_too(shop: Shop, pages: HotPages) -> None:
    """An ADMIN's word reaches every process."""
    shop.publish(shop.stored())
    assert [outcome(shop, "/packages") for _ in range(2)] == ["MISS", "L1"]
    before = pages.announcements.view
    admin = shop.sign_in(Role.ADMIN)
    assert shop.client.delete("/api/v1/admin/cache?status=RECEIVED", headers=admin).status_code == 200
    wait_until(lambda: pages.announcements.view is not before)
    assert outcome(shop, "/packages") == "MISS"


ENDINGS = {
    "dismissal": "UPDATE staff SET active = false WHERE role = 'VIEWER'",
    "new password": "UPDATE staff SET session_generation = session_generation + 1 WHERE role = 'VIEWER'",
    "gone": "DELETE FROM staff WHERE role = 'VIEWER'",
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.usefixtures("pages")
def test_a_session_that_ended_is_forgotten(shop: Shop, ending: str) -> None:
    """Whoever ends it, the process hears of it with the commit, and forgets whom it knew."""
    shop.publish(shop.stored(), scopes=["reference"])
    for path in ("/packages", "/sites"):
        assert [outcome(shop, path) for _ in range(2)] == ["MISS", "L1"]
    watcher = shop.client.app.state.connections.watcher  # type: ignore[attr-defined]
    heard = watcher.staff_changes
    shop.conn.execute(ENDINGS[ending])
    wait_until(lambda: watcher.staff_changes > heard)
    for path in ("/packages", "/sites", "/staff"):
        assert shop.get(path).status_code == 401
    assert outcome(shop, "/packages", role=Role.ADMIN) == "L1"


@pytest.mark.usefixtures("pages")
def test_a_lost_role_is_forgotten(shop: Shop) -> None:
    """A page that the person was shown a moment ago is closed."""
    watcher = shop.client.app.state.connections.watcher  # type: ignore[attr-defined]
    assert shop.get("/staff", role=Role.ADMIN).status_code == 200
    heard = watcher.staff_changes
    shop.conn.execute("UPDATE staff SET role = 'VIEWER' WHERE role = 'ADMIN'")
    wait_until(lambda: watcher.staff_changes > heard)
    assert shop.get("/staff", role=Role.ADMIN).status_code == 403


@pytest.mark.usefixtures("pages")
def test_nobody_is_known_without_word_of_staff(shop: Shop) -> None:
    """A process that would not be told of a dismissal asks each time."""
    shop.publish(shop.stored())
    assert [outcome(shop, "/packages") for _ in range(2)] == ["MISS", "L1"]
    connections = shop.client.app.state.connections  # type: ignore[attr-defined]

    async def deaf(*_: object) -> None:
        connections.watcher.heard_until = 0.0
        await asyncio.sleep(0.05)

    connections.watcher._look = deaf  # noqa: SLF001 (a connection on which nothing arrives any more)
    connections.watcher._hear = deaf  # noqa: SLF001
    wait_until(lambda: not connections.watcher.is_hearing)
    shop.conn.execute(ENDINGS["dismissal"])
    assert shop.get("/packages").status_code == 401


@pytest.mark.usefixtures("pages")
def test_a_session_ends_with_its_shift(shop: Shop) -> None:
    """A remembered token holds no longer than it says."""
    shop.publish(shop.delivered(), scopes=["reference"])
    token = encode_session(Session(shop.staff[Role.VIEWER], 1), shop.settings.secret_key, shop.clock())
    shop.clock.advance(hours=12, seconds=-1)
    headers = {"Authorization": f"Bearer {token}"}
    path = "/api/v1/packages?status=DELIVERED"
    assert [shop.client.get(path, headers=headers).headers["X-Cache"] for _ in range(2)] == ["MISS", "L1"]
    shop.clock.advance(seconds=1)
    assert shop.client.get(path, headers=headers).status_code == 401


@pytest.mark.usefixtures("pages")
def test_the_public_page_of_a_parcel_is_never_answered_ahead_of_its_throttle(shop: Shop, settings: Settings) -> None:
    """Its route counts who asks."""
    row = shop.stored()
    shop.publish(row)
    throttled = settings.model_copy(update={"throttle_track": "3/minute"})
    object.__setattr__(shop.client.app.state.connections, "settings", throttled)  # type: ignore[attr-defined]
    codes = [shop.client.get(f"/api/v1/track/{row['tracking_code']}").status_code for _ in range(4)]
    assert codes[-1] == 429


def test_memory_is_bounded(shop: Shop, pages: HotPages, monkeypatch: pytest.MonkeyPatch) -> None:
    """By bytes; what wasn't asked for longest goes first, and with it the requests that it was known by."""
    shop.publish(*(shop.stored() for _ in range(20)))
    monkeypatch.setattr(hot_pages, "MOST_BYTES", 100_000)
    for limit in range(1, 15):
        outcome(shop, f"/packages?limit={limit}")
        assert outcome(shop, "/packages?limit=1") == "L1"
        assert pages._bytes == sum(ready.size for ready in pages._pages.values()) <= 100_000  # noqa: SLF001
    assert outcome(shop, "/packages?limit=14") == "L1"
    assert outcome(shop, "/packages?limit=2") == "L2"
    assert len(pages._known) == sum(len(ready.known) for ready in pages._pages.values())  # noqa: SLF001


def test_what_went_is_gone(shop: Shop, pages: HotPages, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: a page that its own request still knew would wait, bytes and all, for a collection of the garbage."""
    shop.publish(shop.stored())
    outcome(shop, "/packages?limit=1")
    [ready] = pages._pages.values()  # noqa: SLF001
    assert ready.known
    page = weakref.ref(ready.finished)
    del ready
    gc.collect()
    gc.disable()
    try:
        monkeypatch.setattr(hot_pages, "MOST_BYTES", 0)
        outcome(shop, "/packages?limit=2")
        assert page() is None
    finally:
        gc.enable()


def test_hits_are_counted(shop: Shop, pages: HotPages) -> None:
    """Every one of them and its bytes, in the metrics within a moment, and so is what the pages take."""

    def counted() -> list[float]:
        pages.flush()
        lines = [line.rpartition(" ") for line in shop.client.get("/metrics").text.splitlines()]
        told = {name.removeprefix("paqueteria_"): float(value) for name, _, value in lines if name[:1] != "#"}
        route = 'route="/api/v1/packages"'
        return [
            told.get(name, 0.0)
            for name in (
                f'http_hot_answers_total{{{route},status="200"}}',
                f'http_hot_answers_total{{{route},status="304"}}',
                f"http_hot_answer_bytes_total{{{route}}}",
                'page_cache_reads_total{level="L1",outcome="hit"}',
                "page_cache_l1_pages",
                "page_cache_l1_bytes",
            )
        ]

    shop.publish(shop.stored())
    first = shop.get("/packages", {"Accept-Encoding": "identity"})
    before = counted()
    for _ in range(3):
        shop.get("/packages", {"Accept-Encoding": "identity"})
    shop.get("/packages", {"If-None-Match": first.headers["ETag"], "Accept-Encoding": "identity"})
    after = counted()
    assert [b - a for a, b in zip(before[:4], after[:4], strict=True)] == [3, 1, 3 * len(first.content), 4]
    assert after[4:] == [1, sum(ready.size for ready in pages._pages.values())]  # noqa: SLF001


def test_what_makes_room_is_counted(shop: Shop, pages: HotPages, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that was dropped for another one is an eviction; one that was made again isn't."""
    before = REGISTRY.get_sample_value("paqueteria_page_cache_l1_evictions_total") or 0.0
    shop.publish(shop.stored())
    shop.get("/packages?limit=1")
    shop.publish(shop.stored())
    shop.get("/packages?limit=1")
    monkeypatch.setattr(hot_pages, "MOST_BYTES", 0)
    shop.get("/packages?limit=2")
    pages.flush()
    assert REGISTRY.get_sample_value("paqueteria_page_cache_l1_evictions_total") == before + 2


@pytest.mark.usefixtures("pages")
def test_head_is_the_head_of_what_is_known(shop: Shop) -> None:
    """Every header that the page itself has, its length included."""
    shop.publish(shop.stored())
    assert [outcome(shop, "/packages") for _ in range(2)] == ["MISS", "L1"]
    sent = shop.sign_in() | {"X-Request-Id": "the-same"}
    head, page = (ask("/api/v1/packages", headers=sent) for ask in (shop.client.head, shop.client.get))
    assert (head.status_code, head.headers, head.content) == (200, page.headers, b"")


@pytest.mark.usefixtures("pages")
def test_nothing_else_is_answered_ahead(shop: Shop) -> None:
    """Another method, a header twice and another path go the long way."""
    shop.publish(shop.stored())
    assert [outcome(shop, "/packages") for _ in range(2)] == ["MISS", "L1"]
    headers = shop.sign_in()
    assert shop.client.post("/api/v1/packages", headers=headers).status_code == 405
    twice = [*headers.items(), *shop.sign_in(Role.ADMIN).items()]
    assert shop.client.get("/api/v1/packages", headers=twice).status_code == 200
    assert shop.client.get("/api/v1/packages/", headers=headers, follow_redirects=False).status_code != 200


@pytest.mark.usefixtures("pages")
def test_the_cookie_of_our_own_pages_lets_in_too(shop: Shop) -> None:
    """As the long way has it: where there is no Authorization header; and for the public a bad one is none."""
    shop.publish(shop.stored(), scopes=["reference"])
    token = shop.sign_in()["Authorization"].removeprefix("Bearer ")

    def ask(path: str, token: str, **headers: str) -> tuple[int, str | None]:
        answer = shop.client.get(f"/api/v1{path}", headers={"Cookie": f"{SESSION_COOKIE}={token}", **headers})
        return answer.status_code, answer.headers.get("X-Cache")

    assert [ask("/packages", token) for _ in range(2)] == [(200, "MISS"), (200, "L1")]
    assert [ask("/sites", token) for _ in range(2)] == [(200, "MISS"), (200, "L1")]
    assert ask("/packages", f"{token}x") == (401, None)
    assert ask("/sites", f"{token}x") == (200, "L1")
    for wrong in ("", "Bearer x"):
        assert ask("/packages", token, Authorization=wrong) == (401, None)
