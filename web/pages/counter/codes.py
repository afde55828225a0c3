"""The barcodes that stand for what the counter does, so that the scanner needn't be put down.

They are of letters alone, which keyboard layouts type alike, and which no guide is made of.
"""

from dataclasses import dataclass

from db.package_document import Condition, PackageType, PaymentMethod
from web.localization import N_

TYPES: dict[PackageType, str] = {"NORMAL": N_("Normal"), "EXTRA_SIZED": N_("Extra-sized")}
CONDITIONS: dict[Condition, str] = {
    "GOOD": N_("Good"),
    "FAIR": N_("Fair"),
    "OPENED": N_("Opened"),
    "DAMAGED": N_("Damaged"),
}
METHODS: dict[PaymentMethod, str] = {
    "CASH": N_("Cash"),
    "TRANSFER": N_("Transfer"),
    "NEQUI": "Nequi",
    "DAVIPLATA": "Daviplata",
}


@dataclass(frozen=True, slots=True)
class Command:
    """A step of the counter, and what it takes."""

    label: str
    action: str
    q: str = ""


STEPS = {
    "CMDRECIBIR": Command(N_("Receive"), "receive"),
    "CMDENTREGAR": Command(N_("Hand over"), "deliver"),
    "CMDCANCELAR": Command(N_("A step back"), "cancel"),
    "CMDFIJAR": Command(N_("Keep this customer, or let go"), "pin-or-not"),
    "CMDAPARTE": Command(N_("Another parcel, or another code of the one before"), "sort-out"),
}

METHOD_CODES = {f"CMD{name}": Command(label, "method", name) for name, label in METHODS.items()}
TYPE_CODES = {f"CMD{name.replace('_', '')}": Command(label, "type", name) for name, label in TYPES.items()}
CONDITION_CODES = {f"CMD{name}": Command(label, "condition", name) for name, label in CONDITIONS.items()}

SHEET: list[tuple[str, dict[str, Command]]] = [
    (N_("What to do"), STEPS),
    (N_("Type"), TYPE_CODES),
    (N_("Condition"), CONDITION_CODES),
    (N_("Method"), METHOD_CODES),
]
"""What is printed, under its headings."""

COMMANDS = {code: command for _, commands in SHEET for code, command in commands.items()}


def code_of(action: str, q: str) -> str:
    """Give the code of a step."""
    return next(code for code, command in COMMANDS.items() if (command.action, command.q) == (action, q))
