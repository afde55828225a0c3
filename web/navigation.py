"""The way from page to page: one entry a page, shown to the roles that it is for."""

from dataclasses import dataclass

from infra.auth import Role
from web.localization import N_


@dataclass(frozen=True, slots=True)
class Entry:
    """A page in the bar at the top."""

    path: str
    label: str
    icon: str
    role: Role


ENTRIES = [
    Entry("/mostrador", N_("Counter"), "scan", Role.OPERATOR),
    Entry("/paquetes", N_("Parcels"), "list", Role.VIEWER),
    Entry("/resumen", N_("Summary"), "chart", Role.VIEWER),
    Entry("/administracion", N_("Administration"), "gear", Role.ADMIN),
]


def entries(role: Role | None) -> list[Entry]:
    """Give the pages that a role may see; the public has none of these."""
    return [entry for entry in ENTRIES if role is not None and role.reaches(entry.role)]


def home(role: Role) -> str:
    """Give the page that a role begins with."""
    return entries(role)[0].path
