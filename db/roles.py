"""The database roles that processes work as, and what each may do: as little as it needs.

Made by every `migrate`, so that what a migration adds is given to whom it is for. Where the migrating role may not make
roles, those that an operator has made are given their rights; there may also be none, and one URL for everything.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from infra import logs
from infra.settings import PROJECT_ROLE, READ_ROLE, WRITE_ROLE

log = logs.get("roles")

ROLES = (READ_ROLE, WRITE_ROLE, PROJECT_ROLE)

Db = psycopg.Connection[tuple[Any, ...]]

PROJECTED = (
    "batch_changes",
    "customer_listing",
    "daily_summary",
    "package_counts",
    "package_fees",
    "package_listing",
    "package_search",
    "page_generations",
    "parked_changes",
    "payment_listing",
    "projection_checkpoint",
    "scheduled_runs",
    "unfinished_changes",
    "verifications",
    "view_refreshes",
)
"""What the projector makes and alone writes: it owns them, since a rebuild puts others in their places."""

READ = (*PROJECTED, "schema_migrations", "site_list", "tariff_list", "shelf")

READ_BY_NAME = ("package_history", "package_photos", "staff_list", "staff_sessions", "api_key_holders")
"""What a reader may see of the normalized side."""

LOG_COLUMNS = "position, xid, at, logged_at, life"
"""By which a reader tells how far the projection is behind; not what the log says."""

APPEND_ONLY = ("charges", "consents", "payments")

FUNCTIONS = ("add_change_log_month(date)", "analyze_table(text)", "begin_change_log_life(integer)")
"""What only the projector's schedule may call; all others may be called by anybody."""

RELATIONS = """
SELECT c.relname, pg_get_userbyid(c.relowner), c.relkind IN ('r', 'p') FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
  AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e')  -- an extension's are its own
ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, or a view of whichever kind."""

    name: str
    owner: str
    is_table: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """A privilege on something; those of PostgreSQL's names."""

    role: str
    privilege: str
    kind: str
    name: str

    def is_held(self, conn: Db) -> bool:
        """Tell whether the role has it already: a grant rewrites a row of the catalogue even then."""
        privilege, _, columns = self.privilege.partition(" (")
        if columns:
            held = "SELECT bool_and(has_column_privilege(%s, %s, name, %s)) FROM unnest(%s::text[]) AS name"
            return _value(conn, held, self.role, self.name, privilege, columns.rstrip(")").split(", "))
        return _value(conn, f"SELECT has_{self.kind.lower()}_privilege(%s, %s, %s)", self.role, self.name, privilege)

    def give(self, conn: Db) -> None:
        """Give it."""
        conn.execute(f"GRANT {self.privilege} ON {self.kind} {self.name} TO {self.role}".encode())


def _value(conn: Db, statement: str, *values: object) -> bool:
    row = conn.execute(statement.encode(), values).fetchone()
    return row is not None and bool(row[0])


def make_roles(conn: Db) -> None:
    """Make those that are missing, where this role may; passwords are for an operator to set."""
    if not _value(conn, "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"):
        return
    for name in ROLES:
        if not _exists(conn, name):
            conn.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))


def give_rights(conn: Db) -> None:
    """Give each role that there is what it needs of this schema; nothing is taken that an operator gave by name."""
    present = [name for name in ROLES if _exists(conn, name)]
    if missing := [name for name in ROLES if name not in present]:
        log.warning("roles_missing", roles=missing)
    _keep_from_making_tables(conn, has_projector=PROJECT_ROLE in present)
    relations = [Relation(*row) for row in conn.execute(RELATIONS)]
    if PROJECT_ROLE in present:
        _hand_over(conn, relations)
    for grant in wanted(relations):
        if grant.role in present and not grant.is_held(conn):
            grant.give(conn)


def _keep_from_making_tables(conn: Db, *, has_projector: bool) -> None:
    """Take from everybody what PostgreSQL gives them unasked: temporary tables, which fill a disk like others.

    The projector keeps it, for a concurrent refresh of a materialized view makes one.
    """
    name = sql.Identifier(conn.info.dbname)
    if _value(conn, "SELECT has_database_privilege('public', current_database(), 'TEMPORARY')"):
        conn.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))
    held = "SELECT has_database_privilege(%s, current_database(), 'TEMPORARY')"
    if has_projector and not _value(conn, held, PROJECT_ROLE):
        conn.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(name, sql.Identifier(PROJECT_ROLE)))


def _hand_over(conn: Db, relations: Sequence[Relation]) -> None:
    """Make the projector the owner of the read models; whoever migrates stays able to change them."""
    if not _value(conn, "SELECT pg_has_role(current_user, %s, 'USAGE')", PROJECT_ROLE):
        conn.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(PROJECT_ROLE)))
    create = Grant(PROJECT_ROLE, "CREATE", "SCHEMA", "public")
    if not create.is_held(conn):
        create.give(conn)
    for relation in relations:
        if relation.name in PROJECTED and relation.owner != PROJECT_ROLE:
            statement = sql.SQL("ALTER TABLE {} OWNER TO {}")
            conn.execute(statement.format(sql.Identifier(relation.name), sql.Identifier(PROJECT_ROLE)))


def wanted(relations: Sequence[Relation]) -> list[Grant]:
    """Say what each role needs of these tables and views."""
    names = {relation.name for relation in relations}
    read = [Grant(READ_ROLE, "SELECT", "TABLE", name) for name in (*READ, *READ_BY_NAME) if name in names]
    write = [
        Grant(WRITE_ROLE, privilege, "TABLE", relation.name)
        for relation in relations
        for privilege in _privileges(relation)
    ]
    # The projector's jobs are commands too: what has lapsed is cancelled, what is old forgotten.
    project = [replace(grant, role=PROJECT_ROLE) for grant in write]
    schedule = [Grant(PROJECT_ROLE, "EXECUTE", "FUNCTION", name) for name in FUNCTIONS]
    return [*read, Grant(READ_ROLE, f"SELECT ({LOG_COLUMNS})", "TABLE", "change_log"), *write, *project, *schedule]


def _privileges(relation: Relation) -> Sequence[str]:
    """What commands may do with it: no history is rewritten, but for the erasure of personal values."""
    if not relation.is_table or relation.name in (*PROJECTED, "schema_migrations"):
        return ("SELECT",)
    if relation.name == "change_log":
        return ("SELECT", "INSERT", "UPDATE (data)")
    return ("SELECT", "INSERT") if relation.name in APPEND_ONLY else ("SELECT", "INSERT", "UPDATE", "DELETE")


def _exists(conn: Db, role: str) -> bool:
    return _value(conn, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", role)


def urls_of(dsn: str) -> dict[str, str]:
    """Give the settings by which every process reaches the owner's database, each by its own role."""
    return {
        "database_url": dsn,
        "commands_url": make_conninfo(dsn, user=WRITE_ROLE),
        "queries_url": make_conninfo(dsn, user=READ_ROLE),
        "projector_url": make_conninfo(dsn, user=PROJECT_ROLE),
    }


def set_passwords(dsn: str, urls: Sequence[str]) -> None:
    """Give each role that a URL names the URL's password; the server is told a digest of it alone."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for url in filter(None, urls):
            parts = conninfo_to_dict(url)
            role, password = str(parts.get("user")), parts.get("password")
            if role in ROLES and password:
                digest = conn.pgconn.encrypt_password(str(password).encode(), role.encode(), b"scram-sha-256")
                statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
                conn.execute(statement.format(sql.Identifier(role), sql.Literal(digest.decode())))
