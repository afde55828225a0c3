"""Whose request it is, by network address: the peer's, or the one that a trusted proxy forwards."""

import ipaddress
from collections.abc import Sequence

from fastapi import Request

UNKNOWN = "unknown"


def client_address(request: Request, trusted_proxies: Sequence[str]) -> str:
    """Walk `X-Forwarded-For` from the right past trusted proxies, given as addresses or networks.

    What anybody else claims in that header counts for nothing.
    """
    address = request.client.host if request.client else UNKNOWN
    forwarded = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
    while forwarded and _is_trusted(address, trusted_proxies):
        address = forwarded.pop()
    return address


def _is_trusted(address: str, proxies: Sequence[str]) -> bool:
    try:
        return any(ipaddress.ip_address(address) in ipaddress.ip_network(proxy, strict=False) for proxy in proxies)
    except ValueError:
        return False
