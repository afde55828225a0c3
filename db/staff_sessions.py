"""Who a session belongs to, asked on every request: a dismissal or a new role holds at once, in every process."""

from db.pools import Pool
from infra.auth import Identity, Role, Session

FIND = """
SELECT staff_id, username, full_name, role FROM staff_sessions
WHERE staff_id = %(staff_id)s AND session_generation = %(generation)s
"""


async def identify(pool: Pool, session: Session) -> Identity | None:
    """Look the person up; None when the session was ended or the person dismissed."""
    async with pool.connection() as conn:
        found = await conn.execute(FIND, {"staff_id": session.staff_id, "generation": session.generation})
        row = await found.fetchone()
    return Identity(row[0], row[1], row[2], Role(row[3])) if row else None
