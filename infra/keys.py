"""The keys of every signature, a line each: the first one signs, and what any of them has signed is ours.

A new key is put in front and the old one left behind it, until what the old one signed has run out.
"""


def newest(keys: str) -> str:
    """Give the key that signs."""
    return keys.split("\n", 1)[0]


def oldest_first(keys: str) -> list[str]:
    """Give all of them, the one that signs last, as itsdangerous has it."""
    return keys.split("\n")[::-1]


def each(keys: str) -> list[str]:
    """Give all of them, the one that signs first."""
    return keys.split("\n")
