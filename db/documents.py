"""Sites, staff, customers and tariffs as both APIs show them; a package has `db.package_document`."""

import uuid
from typing import Literal

from pydantic import BaseModel, Field

from infra.fields import Instant, Pesos

RoleName = Literal["ADMIN", "OPERATOR", "VIEWER"]


class Site(BaseModel):
    """A shop."""

    site: str = Field(examples=["PRINCIPAL"])
    name: str
    address: str | None
    phone: str | None
    opening_hours: str | None
    version: int


class StaffMember(BaseModel):
    """A person who may sign in while `active`."""

    staff_id: uuid.UUID
    username: str
    full_name: str
    role: RoleName
    active: bool
    version: int
    created_at: Instant


class Customer(BaseModel):
    """A person who receives parcels; the phone is E.164, and `version` is what `If-Match` takes."""

    customer_id: uuid.UUID
    name: str
    phone: str | None
    email: str | None
    document: str | None
    building: str | None
    tower: str | None
    apartment: str | None
    notes: str | None
    created_at: Instant
    version: int


class BaseFees(BaseModel):
    """What a package costs before any storage, by its type."""

    NORMAL: Pesos
    EXTRA_SIZED: Pesos


class Tariff(BaseModel):
    """What a package announced from `valid_from` on costs."""

    tariff_id: uuid.UUID
    valid_from: Instant
    base_fees: BaseFees
    daily_storage: Pesos
