"""The code that a customer follows a parcel by: random, unique, never reused, and too long to guess."""

import secrets

ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
LENGTH = 8


def new_tracking_code() -> str:
    """Make a code; that it is unique the database sees to, and a collision runs the transaction again."""
    drawn, code = secrets.randbelow(len(ALPHABET) ** LENGTH), ""
    while len(code) < LENGTH:
        drawn, index = divmod(drawn, len(ALPHABET))
        code += ALPHABET[index]
    return code


def shown(code: str) -> str:
    """Write a code as people read it: `XXXX-XXXX`."""
    return f"{code[:4]}-{code[4:]}"
