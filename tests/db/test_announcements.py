"""What is heard of announcements is believed for a second after each of its two proofs, and no longer."""

from redis.asyncio import Redis

from db.announcements import Announcements
from db.breaker import PATIENCE


def test_trust_ends_a_second_after_the_older_proof() -> None:
    """After the last heartbeat or the last answered ping, whichever was earlier; a ping counts from its sending."""
    heard = Announcements(Redis())
    heard.hear("epoch", 100.0)
    assert heard.trusted_until <= 100.0
    heard.answered(100.5, 100.5 + PATIENCE)
    assert heard.trusted_until == 101.0
    heard.hear("epoch", 102.0)
    assert heard.trusted_until == 101.5


def test_a_ping_that_took_long_proves_nothing() -> None:
    """What it stands for may have waited as long."""
    heard = Announcements(Redis())
    heard.hear("epoch", 100.0)
    heard.answered(100.0, 100.01 + PATIENCE)
    assert heard.trusted_until <= 100.0
