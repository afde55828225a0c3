"""Statements put together from literal fragments, never from values: those are always bound."""

from psycopg.sql import SQL


def compose(template: str, **fragments: str) -> str:
    """Put literal fragments where the template names them, `{where}`."""
    return SQL(template).format(**{name: SQL(text) for name, text in fragments.items()}).as_string()


def stamped(query: str) -> str:
    """Let a query's own snapshot also tell the checkpoint and the generations of the page's scopes.

    The query's columns come after those: `body` as text, `expires_at`, `etag`, and what its page needs besides.
    """
    return compose(STAMPED, query=query)


STAMPED = """
SELECT c.incarnation, c.batch, c.snapshot::text,
       ARRAY(SELECT coalesce(g.batch, 0) FROM unnest(%(scopes)s::text[]) WITH ORDINALITY AS asked (scope, n)
             LEFT JOIN page_generations AS g USING (scope) ORDER BY n),
       page.*
FROM projection_checkpoint AS c LEFT JOIN ({query}) AS page ON true
WHERE c.name = 'listing'
"""


def extended(document: str, more: str) -> str:
    """Add members to a JSON document; as text, for one call in PostgreSQL takes a hundred arguments at most."""
    return compose(EXTENDED, document=document, more=more)


EXTENDED = "(left({document}::text, -1) || ', ' || substr({more}::text, 2))::json"
