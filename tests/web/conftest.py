"""A real browser on a real shop: one shop for all of these tests, on one worker."""

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psycopg
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, FilePayload, Page, expect, sync_playwright

import web.api
from commands.add_staff import add_staff_account
from db.embedded import PostgresServer, ValkeyServer
from db.pools import connect
from db.redis_clients import make_redis
from infra.auth import Role
from infra.clock import system_clock
from infra.settings import Settings
from tests.browser import CHROMIUM, IS_LEFT_OUT
from tests.conftest import TEMPLATE
from tests.service import projecting, serving
from tests.support import moved
from tests.web.shop import PASSWORD, STAFF, Shop, run_apart

BRIEF = (("es", "wide"), ("en", "narrow"))
EVERYWHERE = pytest.mark.parametrize(("language", "size"), [*BRIEF, ("es", "narrow"), ("en", "wide")])
"""Both languages and both widths: `make test` tries each test on one pair of BRIEF, `make chaos` on the others."""

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
PATIENCE = 30_000
"""Milliseconds until a page that doesn't come to what a test waits for has failed; never waited for in vain."""

expect.set_options(timeout=PATIENCE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.xdist_group("web"))
            if _is_for_the_long_form(item):
                item.add_marker(pytest.mark.long)
    if IS_LEFT_OUT:
        left_out = [item for item in items if "browser" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_for_the_long_form(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or "language" not in item.fixturenames or "size" not in item.fixturenames:
        return False
    brief = BRIEF[zlib.crc32(item.originalname.encode()) % len(BRIEF)]  # by its name: the same one in every run
    return (item.callspec.params["language"], item.callspec.params["size"]) != brief


# A package has an __init__.py: without one the shop, in this very process, would go on beside whatever comes after.
@pytest.fixture(scope="package")
def shop(postgres: PostgresServer, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One shop for all of these tests: each takes guides and phones of its own."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE pages TEMPLATE {TEMPLATE} STRATEGY file_copy".encode())
        redis_url = valkey.url.replace("db=0", "db=998")
        with open_shop(postgres.dsn("pages"), redis_url, tmp_path_factory.mktemp("pages")) as opened:
            yield opened
        conn.execute("DROP DATABASE pages WITH (FORCE)")


@contextlib.contextmanager
def open_shop(database_url: str, redis_url: str, data_dir: Path, pool_timeout: float = 30.0) -> Iterator[Shop]:
    """Serve a shop with one member of staff for each role, and shelves enough, while the block lasts."""
    settings = moved(
        Settings(
            database_url=database_url,
            redis_url=redis_url,
            secret_key="a key for tests, and for nothing else",
            data_dir=data_dir,
            throttle_announce="",
            throttle_track="",
            throttle_sign_in="",
            pool_timeout=pool_timeout,
        ),
        database_url,
    )
    run_apart(_staff(settings))
    with (
        projecting(settings, system_clock),
        serving(web.api.create_app(settings)) as address,
        httpx2.Client(base_url=address, timeout=30) as client,
    ):
        form = {"username": "ana", "password": PASSWORD}
        token = client.post("/api/v1/auth/token", data=form).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        shelf = {"prefix": "A-", "first": 1, "last": 900, "width": 3}
        client.post("/api/v1/sites/PRINCIPAL/positions", json=shelf).raise_for_status()
        yield Shop(address, settings, client)


async def _staff(settings: Settings) -> None:
    async with await connect(settings.postgres_dsn, "test") as conn, conn.transaction():
        for username, (full_name, role) in STAFF.items():
            await add_staff_account(conn, username, full_name, Role(role), PASSWORD)
    async with make_redis(settings) as redis:
        await redis.flushdb()


# Its event loop is the thread's while it is open, so that it must be closed before another module's tests have theirs.
@pytest.fixture(scope="module")
def browser(shop: Shop) -> Iterator[Browser]:  # noqa: ARG001 (closed before the shop is)
    if CHROMIUM is None:
        pytest.fail("There is no browser: install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


def _is_fault(said: ConsoleMessage) -> bool:
    """Tell what somebody should look into; htmx remarks on each request that another one has overtaken."""
    return said.type == "error" and not said.text.startswith(("htmx:sendAbort", "htmx:afterRequest"))


def chosen(file: bytes) -> FilePayload:
    """Give a file as a person chooses it."""
    return {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": file}


class Visitor:
    """Somebody at a browser of their own."""

    def __init__(self, browser: Browser, shop: Shop) -> None:
        self._browser, self.shop = browser, shop
        self.contexts: list[BrowserContext] = []
        self.faults: list[str] = []

    def open(
        self, path: str, *, who: str | None = "oscar", size: str = "wide", language: str = "es", script: bool = True
    ) -> Page:
        """Open a page as a member of staff, or as nobody."""
        width, height = SIZES[size]
        context = self._browser.new_context(
            base_url=self.shop.address,
            viewport={"width": width, "height": height},
            java_script_enabled=script,
            reduced_motion="reduce",
            locale="es-CO",
        )
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        if who is not None:
            answer = context.request.post(
                "/entrar",
                form={"username": who, "password": PASSWORD},
                headers={"Origin": self.shop.address},
                max_redirects=0,
            )
            assert answer.status == 303, answer.text()
        page = context.new_page()
        page.on("console", lambda said: self.faults.append(said.text) if _is_fault(said) else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        mark = "&" if "?" in path else "?"
        page.goto(path if language == "es" else f"{path}{mark}lang={language}")
        return page

    def close(self) -> None:
        """Close all that was opened."""
        for context in self.contexts:
            context.close()


@pytest.fixture
def visitor(browser: Browser, shop: Shop) -> Iterator[Visitor]:
    """Opens pages; whatever a page's console complains of fails the test."""
    with contextlib.closing(Visitor(browser, shop)) as visitor:
        yield visitor
    assert visitor.faults == []
