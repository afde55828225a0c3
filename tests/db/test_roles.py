"""Each process works as a role of its own, and what it may do is what it needs."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from db.embedded import PostgresServer
from db.migrate import migrate
from db.pools import connect
from db.roles import PROJECTED, READ, READ_BY_NAME, give_rights, set_passwords
from infra.clock import system_clock
from infra.settings import PROJECT_ROLE, READ_ROLE, WRITE_ROLE, Settings
from projections.rebuild import rebuild
from projections.refresh import VIEWS, refresh_views

As = Callable[[str], psycopg.Connection]

REFUSED = psycopg.errors.InsufficientPrivilege

RELATIONS = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
ORDER BY relname
"""

PRIVILEGES = """
SELECT relname, pg_get_userbyid(relowner), relacl::text FROM pg_class
WHERE relname IN ('package_listing', 'package_search', 'customer_listing', 'payment_listing') ORDER BY relname
"""


@pytest.fixture
def as_role(database: str) -> Iterator[As]:
    """Connects as a role; each statement is a transaction."""
    opened = []

    def connect(role: str) -> psycopg.Connection:
        opened.append(psycopg.connect(make_conninfo(database, user=role), autocommit=True))
        return opened[-1]

    yield connect
    for conn in opened:
        conn.close()


def test_a_reader_reads_what_is_named_and_nothing_else(as_role: As) -> None:
    """Customers, passwords, keys and the log's words are closed to it, whatever statement somebody gets it to run."""
    conn = as_role(READ_ROLE)
    readable = set()
    for (name,) in conn.execute(RELATIONS).fetchall():
        try:
            conn.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier(name)))
        except REFUSED:
            continue
        readable.add(name)
    assert readable == {*READ, *READ_BY_NAME}
    assert not readable & {"customers", "staff", "api_keys", "change_log", "idempotency_keys", "payments"}


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO page_generations VALUES ('all', 0)",
        "UPDATE package_listing SET status = 'DELIVERED'",
        "DELETE FROM package_counts",
        "TRUNCATE package_search",
        "UPDATE staff_list SET role = 'ADMIN'",
        "CREATE TABLE of_its_own ()",
        "SELECT data FROM change_log",
        "SELECT password_hash FROM staff",
        "REFRESH MATERIALIZED VIEW package_fees",
        "SELECT begin_change_log_life(9)",
        "SELECT analyze_table('packages')",
        "SELECT add_change_log_month('2031-01-01')",
        "SET ROLE paqueteria_write",
    ],
)
def test_a_reader_changes_nothing(as_role: As, statement: str) -> None:
    """Neither what it reads nor anything else, and it can't become somebody who may."""
    with pytest.raises(REFUSED):
        as_role(READ_ROLE).execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE of_its_own ()",
        "ALTER TABLE packages ADD COLUMN more text",
        "DROP TABLE idempotency_keys",
        "TRUNCATE packages",
        "ALTER TABLE payments DISABLE TRIGGER ALL",
        "UPDATE charges SET total = 0",
        "DELETE FROM payments",
        "DELETE FROM change_log",
        "UPDATE change_log SET type = 'Nothing'",
        "UPDATE package_listing SET status = 'DELIVERED'",
        "UPDATE projection_checkpoint SET batch = 0",
        "UPDATE schema_migrations SET checksum = ''",
        "SELECT begin_change_log_life(9)",
    ],
)
def test_a_command_shapes_no_table_and_rewrites_no_history(as_role: As, statement: str) -> None:
    """The write API may write rows of the normalized side; the rest is for those who own it."""
    with pytest.raises(REFUSED):
        as_role(WRITE_ROLE).execute(statement.encode())


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE packages ADD COLUMN more text", "DROP TABLE payments", "ALTER TABLE change_log DISABLE TRIGGER ALL"],
)
def test_the_projector_owns_the_read_side_alone(as_role: As, statement: str) -> None:
    """It makes read models anew; of the normalized side it owns nothing."""
    with pytest.raises(REFUSED):
        as_role(PROJECT_ROLE).execute(statement.encode())


@pytest.mark.anyio
@pytest.mark.parametrize("is_owner", [False, True])
async def test_rights_outlive_a_rebuild(settings: Settings, as_role: As, *, is_owner: bool) -> None:
    """A table that takes another's place belongs to the same role and is open to the same, an operator's among them."""
    as_role("paqueteria").execute("GRANT SELECT ON package_listing TO pg_monitor")
    before = as_role("paqueteria").execute(PRIVILEGES).fetchall()
    await rebuild(settings if is_owner else settings.for_projector(), "package_listing")
    after = as_role("paqueteria").execute(PRIVILEGES).fetchall()
    assert after == before
    assert {owner for _, owner, _ in after} == {PROJECT_ROLE}
    assert as_role(READ_ROLE).execute("SELECT count(*) FROM package_listing").fetchone() == (0,)


def test_a_migration_gives_what_it_adds(database: str, as_role: As) -> None:
    """A new table is the commands' after the next `migrate`, and not the readers' until it is named."""
    as_role("paqueteria").execute("CREATE TABLE added ()")
    migrate(database)
    as_role(WRITE_ROLE).execute("DELETE FROM added")
    with pytest.raises(REFUSED):
        as_role(READ_ROLE).execute("SELECT FROM added")


def test_no_process_makes_tables_of_its_own(database: str, as_role: As) -> None:
    """Not even temporary ones, which anybody may have by default: a restored database forgets that, until `migrate`."""
    with psycopg.connect(database, autocommit=True) as owner:
        give_rights(owner)
    for role in (READ_ROLE, WRITE_ROLE):
        with pytest.raises(REFUSED):
            as_role(role).execute("CREATE TEMPORARY TABLE of_its_own ()")


@pytest.mark.anyio
async def test_the_projector_refreshes_the_views_again_and_again(database: str) -> None:
    """From the second time on concurrently, for which PostgreSQL makes a temporary table: the projector alone may."""
    with psycopg.connect(database, autocommit=True) as owner:
        give_rights(owner)
    async with await connect(make_conninfo(database, user=PROJECT_ROLE), "refresh") as conn:
        for _ in range(2):
            await refresh_views(conn, system_clock())
        refreshed = await (await conn.execute("SELECT count(*) FROM view_refreshes")).fetchone()
    assert refreshed == (len(VIEWS),)


def test_whoever_may_not_make_roles_migrates_all_the_same(postgres: PostgresServer) -> None:
    """A database of one's own on somebody else's server: its owner is no superuser, and gives what rights it can."""
    with psycopg.connect(postgres.dsn("postgres"), autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS rented")
        conn.execute("DROP ROLE IF EXISTS tenant")
        conn.execute("CREATE ROLE tenant LOGIN")
        conn.execute(f"GRANT {PROJECT_ROLE} TO tenant")
        conn.execute("CREATE DATABASE rented OWNER tenant TEMPLATE template0")
    rented = make_conninfo(postgres.dsn("rented"), user="tenant")
    assert migrate(rented)
    assert migrate(rented) == []
    with psycopg.connect(make_conninfo(rented, user=READ_ROLE)) as conn:
        assert conn.execute("SELECT count(*) FROM package_listing").fetchone() == (0,)
    with psycopg.connect(rented) as conn:
        owners = conn.execute("SELECT tableowner FROM pg_tables WHERE tablename = ANY(%s)", (list(PROJECTED),))
        assert set(owners.fetchall()) == {(PROJECT_ROLE,)}


def test_roles_get_the_passwords_of_their_urls(postgres: PostgresServer, database: str) -> None:
    """As a digest: neither the statement nor the log that may quote it says what a password is."""
    find = "SELECT rolpassword FROM pg_authid WHERE rolname = %s"
    with psycopg.connect(database, autocommit=True) as conn:
        reader, owner = (make_conninfo(user=user, password="una-clave") for user in (READ_ROLE, "paqueteria"))
        set_passwords(database, ["", reader, owner])
        digest = conn.execute(find, [READ_ROLE]).fetchone()
        assert digest is not None
        assert digest[0].startswith("SCRAM-SHA-256$")
        assert conn.execute(find, ["paqueteria"]).fetchone() == (None,)
        conn.execute(f"ALTER ROLE {READ_ROLE} PASSWORD NULL")
    assert "una-clave" not in postgres.log.read_text()
