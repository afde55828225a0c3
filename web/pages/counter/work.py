"""What is on the counter: the page sends it with each scan, and gets back what it has become."""

import uuid
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from db.package_document import Condition, PackageType, PaymentMethod
from infra.fields import OptionalPhone

MOST_PENDING = 500
MOST_HANDED_OVER = 100
MOST_CODES = 10


def _absent_if_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _pesos(value: object) -> object:
    """Read an amount as people write it: `20.000`, `$ 20.000`."""
    digits = value.translate({ord(mark): None for mark in "$. \xa0"}) if isinstance(value, str) else value
    return digits or None


def _printable(value: object) -> object:
    """Leave out what no keyboard types: some scanners send separators within a code."""
    return "".join(filter(str.isprintable, value)) if isinstance(value, str) else value


def _typed(value: object) -> object:
    return _absent_if_blank(_printable(value))


Typed = Annotated[str, BeforeValidator(_printable)]
OptionalText = Annotated[Annotated[str, Field(max_length=1000)] | None, BeforeValidator(_typed)]
OptionalPesos = Annotated[Annotated[int, Field(ge=0, le=10**12)] | None, BeforeValidator(_pesos)]


def bare(code: str) -> str:
    """Give a code as it is compared."""
    return code.replace("-", "").upper()


Waiting = Annotated[str, Field(max_length=1200, pattern=r"\S"), BeforeValidator(_printable)]


class Work(BaseModel):
    """One step at the counter, and what lies there before it.

    `guide` waits for its customer, `other_code` are the other barcodes of its label, `pending` are guides that waited
    when something else was scanned, each with its other codes behind it; `last` is the parcel that was received before.
    `package_id` are the parcels being handed over, `due` what the clerk was shown for each of them, in the same order.
    """

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)

    key: str = Field(default="", max_length=80, pattern=r"^[A-Za-z0-9-]*$")
    action: str = Field(default="scan", max_length=20)
    q: Typed = Field(default="", max_length=200)

    package_type: PackageType = "NORMAL"
    condition: Condition = "GOOD"
    site: OptionalText = None
    carrier: OptionalText = None
    position: OptionalText = None
    observations: OptionalText = None
    guide: OptionalText = None
    other_code: list[str] = Field(default=[], max_length=MOST_CODES)
    last: Annotated[uuid.UUID | None, BeforeValidator(_absent_if_blank)] = None
    last_guide: OptionalText = None
    customer_name: OptionalText = None
    customer_phone: OptionalPhone = None
    pinned_name: OptionalText = None
    pinned_phone: OptionalPhone = None
    pending: list[Waiting] = Field(default=[], max_length=MOST_PENDING)

    package_id: list[uuid.UUID] = Field(default=[], max_length=MOST_HANDED_OVER)
    due: list[int] = Field(default=[], max_length=MOST_HANDED_OVER)
    method: PaymentMethod = "CASH"
    received: OptionalPesos = None
    charged: OptionalPesos = None
    amount_reason: OptionalText = None
    collected_by: OptionalText = None

    @model_validator(mode="after")
    def _one_due_each(self) -> Self:
        if len(self.due) != len(self.package_id):
            raise ValueError("each parcel comes with what is due for it")
        return self

    def set_aside(self) -> None:
        """Put the guide that waits for its customer with the others that do."""
        if self.guide:
            self.drop_pending(self.guide)
            self.pending.append(" ".join((self.guide, *self.other_code)))
        self.forget_guide()

    def drop_pending(self, guide: str) -> None:
        """Take a guide out of those that wait."""
        self.pending = [waiting for waiting in self.pending if bare(waiting.split()[0]) != bare(guide)]

    def take_up(self, guide: str) -> bool:
        """Have a guide at hand that waits, with its other codes; False where it doesn't."""
        waiting = next((waiting for waiting in self.pending if bare(waiting.split()[0]) == bare(guide)), None)
        if waiting is None:
            return False
        self.set_aside()
        self.guide, *self.other_code = waiting.split()
        self.drop_pending(guide)
        return True

    def forget_guide(self) -> None:
        """Be done with the guide and its customer."""
        self.guide = self.customer_name = self.customer_phone = None
        self.other_code = []

    def take_next(self) -> None:
        """Go on with the guide that has waited longest, where nothing else is at hand."""
        if self.guide is None and not self.package_id and self.pending:
            self.take_up(self.pending[0].split()[0])

    def forget_hand_over(self) -> None:
        """Be done with the parcels being handed over, and with what was typed about them."""
        self.package_id, self.due = [], []
        self.received = self.charged = self.amount_reason = self.collected_by = None


class Answer(BaseModel):
    """What a step came to: `kind` names the card that shows it, `sound` what is heard."""

    kind: str
    sound: str = "good"
    text: str = ""
    package: dict[str, Any] | None = None
    packages: list[dict[str, Any]] = []
    customers: list[dict[str, Any]] = []
    refused: list[tuple[dict[str, Any], str]] = []
    paid: int = 0
    change: int | None = None
