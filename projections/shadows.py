"""What a rebuild makes beside the read models that serve: a table filled part by part, indexed, kept up to date."""

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

from db.pools import Connection
from infra.errors import ConfigurationError
from projections.parking import Kind, derive_healthy, is_poison

Part = tuple[uuid.UUID, uuid.UUID | None]
"""The first key and the one that it ends before; None: it has no end."""

PARTS = 8
"""Of about as many rows each: what is reported, what lanes share, and what is gone through again for a poison row."""

FEW_DIFFERENCES = 1000
"""Rows that a swap mends in place, while the projector waits."""

BASES = {"package_id": "packages", "customer_id": "customers"}

QUANTILES = """
SELECT percentile_disc(%(shares)s::float8[]) WITHIN GROUP (ORDER BY {key}) FROM {base} TABLESAMPLE SYSTEM (1)
"""

# A column of the table that its source lacks stays at its default; one of the source that the table lacks is left out.
COLUMNS = """
SELECT t.attname, s.attname IS NOT NULL, t.attnotnull AND NOT t.atthasdef
FROM pg_attribute AS t
LEFT JOIN pg_attribute AS s
    ON s.attrelid = %(source)s::regclass AND s.attname = t.attname AND s.attnum > 0 AND NOT s.attisdropped
WHERE t.attrelid = %(table)s::regclass AND t.attnum > 0 AND NOT t.attisdropped
ORDER BY t.attnum
"""

INDEXES = """
SELECT c.relname, pg_get_indexdef(i.indexrelid), i.indisprimary
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = %(table)s::regclass
ORDER BY i.indisprimary DESC, c.relname
"""

CREATE = """
CREATE TABLE {shadow} (LIKE {table} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) WITH (autovacuum_enabled = off)
"""

OPTIONS = """
SELECT option_name, option_value
FROM pg_class AS c, pg_options_to_table(c.reloptions) WHERE c.oid = %(table)s::regclass
"""

# Whose the table that serves is, and who may do what with it: the shadow's are the same.
OWNER = "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = %(table)s::regclass"

GRANTS = """
SELECT pg_get_userbyid(g.grantee), g.privilege_type FROM pg_class AS c, aclexplode(c.relacl) AS g
WHERE c.oid = %(table)s::regclass AND g.grantee NOT IN (0, c.relowner)
"""

OF_PART = sql.SQL("{key} >= %(first)s AND (%(end)s::uuid IS NULL OR {key} < %(end)s)")

OF_KEYS = sql.SQL("{key} = ANY(%(keys)s)")

# In the order of the keys, which is about that of time: a page of the newest is read from a few blocks.
FILL = "INSERT INTO {shadow} ({columns}) SELECT {columns} FROM {source} WHERE {which} ORDER BY {key}"

DIFFERENCES = """
SELECT coalesce(s.{key}, t.{key})
FROM (SELECT {columns} FROM {source} WHERE {which}) AS s
FULL JOIN (SELECT {columns} FROM {table} WHERE {which}) AS t ON t.{key} = s.{key}
WHERE s IS DISTINCT FROM t
LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A table that one view defines; `key` says which of a change's ids its rows are found by."""

    name: str
    key: str
    is_dear: bool = False
    """Its index takes longer than everything else, so that it is made anew only where many rows are wrong."""

    @property
    def kind(self) -> Kind:
        """What its keys are keys of."""
        return "package" if self.key == "package_id" else "customer"


READ_MODELS = (
    ReadModel("package_listing", "package_id"),
    ReadModel("package_search", "package_id", is_dear=True),
    ReadModel("customer_listing", "customer_id", is_dear=True),
    ReadModel("payment_listing", "package_id"),
)


@dataclass(slots=True)
class Shadow:
    """A read model on its way: what it is made of, and what isn't in it."""

    model: ReadModel
    columns: sql.Composed
    parts: Sequence[Part]
    poison: dict[uuid.UUID, str] = field(default_factory=dict)
    """Keys that are left out, and why."""
    mends: set[uuid.UUID] | None = None
    """Keys whose rows the swap mends in the table that serves; None: that table is replaced."""

    def say(self, statement: str, which: sql.SQL = OF_KEYS) -> sql.Composed:
        """Put the names of this read model into a statement."""
        key = sql.Identifier(self.model.key)
        return sql.SQL(statement).format(
            shadow=sql.Identifier(f"{self.model.name}_shadow"),
            table=sql.Identifier(self.model.name),
            source=sql.Identifier(f"{self.model.name}_source"),
            base=sql.Identifier(BASES[self.model.key]),
            columns=self.columns,
            key=key,
            which=which.format(key=key),
        )


async def plan(conn: Connection, model: ReadModel) -> Shadow:
    """Find out what the read model is made of. Raises ConfigurationError if its source can't fill it."""
    names = {"table": model.name, "source": f"{model.name}_source"}
    rows = await (await conn.execute(COLUMNS, names)).fetchall()
    for column, is_in_source, is_required in rows:
        if is_required and not is_in_source:
            raise ConfigurationError(f"{model.name} needs a column {column}, which its source doesn't have")
    columns = sql.SQL(", ").join(sql.Identifier(column) for column, is_in_source, _ in rows if is_in_source)
    shadow = Shadow(model, columns, ())
    shares = [number / PARTS for number in range(1, PARTS)]
    sample = await (await conn.execute(shadow.say(QUANTILES), {"shares": shares})).fetchone()
    ends = sorted(set(sample[0] or ())) if sample else []
    shadow.parts = list(zip([uuid.UUID(int=0), *ends], [*ends, None], strict=True))
    await conn.execute(shadow.say("DROP TABLE IF EXISTS {shadow}"))
    return shadow


async def create(conn: Connection, shadow: Shadow) -> None:
    """Make the table, to be filled."""
    await conn.execute(shadow.say(CREATE))
    for name, value in await (await conn.execute(OPTIONS, {"table": shadow.model.name})).fetchall():
        option = sql.SQL("SET ({} = {})").format(sql.SQL(name), sql.Literal(value))
        await conn.execute(sql.SQL("{} {}").format(shadow.say("ALTER TABLE {shadow}"), option))


async def fill(conn: Connection, shadow: Shadow, part: Part) -> None:
    """Derive the rows of a part, as the transaction's snapshot shows them; poison rows are left out and noted."""
    values = {"first": part[0], "end": part[1]}
    try:
        async with conn.transaction():
            await conn.execute(shadow.say(FILL, OF_PART), values, prepare=False)
    except psycopg.Error as error:
        if not is_poison(error):
            raise
        rows = await conn.execute(shadow.say("SELECT {key} FROM {base} WHERE {which}", OF_PART), values, prepare=False)
        await derive(conn, shadow, [key for (key,) in await rows.fetchall()])


async def derive(conn: Connection, shadow: Shadow, keys: Sequence[uuid.UUID], into: str = "{shadow}") -> None:
    """Derive the rows of these keys again; those that can't be derived are left out and noted."""

    async def put(part: Sequence[uuid.UUID]) -> None:
        await conn.execute(shadow.say(FILL.replace("{shadow}", into)), {"keys": part}, prepare=False)

    await conn.execute("SET LOCAL enable_nestloop = on")
    await conn.execute(shadow.say(f"DELETE FROM {into} WHERE {{which}}"), {"keys": keys}, prepare=False)
    for key in keys:
        shadow.poison.pop(key, None)
    shadow.poison |= await derive_healthy(conn, keys, put)


async def differing(conn: Connection, shadow: Shadow, part: Part) -> set[uuid.UUID] | None:
    """Give the keys of a part whose rows aren't what the source says, of many some; None: they can't be compared."""
    return await _differing(conn, shadow, OF_PART, {"first": part[0], "end": part[1], "most": FEW_DIFFERENCES + 1})


async def _differing(conn: Connection, shadow: Shadow, which: sql.SQL, values: dict[str, Any]) -> set[uuid.UUID] | None:
    try:
        async with conn.transaction():
            rows = await conn.execute(shadow.say(DIFFERENCES, which), values, prepare=False)
            return {key for (key,) in await rows.fetchall()}
    except psycopg.Error as error:
        if is_poison(error) or isinstance(error, psycopg.errors.DatatypeMismatch):
            return None
        raise


async def keep(conn: Connection, shadow: Shadow) -> None:
    """Give what can't be derived the rows that it has: late is better than gone."""
    if shadow.poison:
        statement = "INSERT INTO {shadow} SELECT * FROM {table} WHERE {key} = ANY(%(keys)s)"
        await conn.execute(shadow.say(statement), {"keys": list(shadow.poison)})


async def mend(conn: Connection, shadow: Shadow) -> None:
    """Derive again, in the table that serves, which of the noted rows aren't what the source says."""
    keys = list(shadow.mends or ())
    wrong = await _differing(conn, shadow, OF_KEYS, {"keys": keys, "most": len(keys)})
    await derive(conn, shadow, keys if wrong is None else list(wrong), "{table}")


async def indexes_of(conn: Connection, shadow: Shadow) -> list[tuple[str, str, bool]]:
    """Give name, definition and whether it is the primary key, of each index that the shadow will have."""
    return [tuple(row) for row in await (await conn.execute(INDEXES, {"table": shadow.model.name})).fetchall()]


async def index(conn: Connection, shadow: Shadow, name: str, definition: str) -> None:
    """Make one index, named after the one that serves."""
    table = shadow.model.name
    before, after = f" INDEX {name} ON public.{table} ", f" INDEX {name}_shadow ON {table}_shadow "
    await conn.execute(definition.replace(before, after).encode())


async def finish(conn: Connection, shadow: Shadow, primary: Collection[str]) -> None:
    """Make of the table what the one that serves is: its key, its statistics, its upkeep."""
    for name in primary:
        index_name = sql.Identifier(f"{name}_shadow")
        add = sql.SQL("ALTER TABLE {table} ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {name}")
        await conn.execute(add.format(table=sql.Identifier(f"{shadow.model.name}_shadow"), name=index_name))
    await conn.execute(shadow.say("ANALYZE {shadow}"))
    await conn.execute(shadow.say("ALTER TABLE {shadow} RESET (autovacuum_enabled)"))
    await _give_rights(conn, shadow)


async def _give_rights(conn: Connection, shadow: Shadow) -> None:
    table = sql.Identifier(f"{shadow.model.name}_shadow")
    for role, privilege in await (await conn.execute(GRANTS, {"table": shadow.model.name})).fetchall():
        grant = sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(privilege), table, sql.Identifier(role))
        await conn.execute(grant)
    row = await (await conn.execute(OWNER, {"table": shadow.model.name})).fetchone()
    if row is not None:
        await conn.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(table, sql.Identifier(row[0])))


async def rename(conn: Connection, shadow: Shadow) -> None:
    """Put the shadow in its place."""
    names = [name for name, _, _ in await indexes_of(conn, shadow)]
    await conn.execute(shadow.say("DROP TABLE {table}"))
    await conn.execute(
        sql.SQL("ALTER TABLE {} RENAME TO {}").format(
            sql.Identifier(f"{shadow.model.name}_shadow"), sql.Identifier(shadow.model.name)
        )
    )
    for name in names:
        await conn.execute(
            sql.SQL("ALTER INDEX {} RENAME TO {}").format(sql.Identifier(f"{name}_shadow"), sql.Identifier(name))
        )
