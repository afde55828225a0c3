"""A package as everybody is shown it: one JSON document, made in PostgreSQL from a row of the listing.

The read side takes the row from `package_listing`, a command's answer from `package_listing_source` in its own
transaction; both alias it `l`, join it with PRICED, and bind `now`.
"""

import uuid
from typing import Literal

from pydantic import BaseModel

from infra.fields import Instant, Pesos

Status = Literal["ANNOUNCED", "RECEIVED", "DELIVERED", "CANCELLED"]
PackageType = Literal["NORMAL", "EXTRA_SIZED"]
Condition = Literal["GOOD", "FAIR", "OPENED", "DAMAGED"]
PaymentMethod = Literal["CASH", "TRANSFER", "NEQUI", "DAVIPLATA"]

PRICED = "CROSS JOIN LATERAL package_fee(l.base_fee, l.daily_storage, l.received_at, %(now)s) AS fee"

PACKAGE_DOCUMENT = """json_build_object(
    'package_id', l.package_id,
    'tracking_code', left(l.tracking_code, 4) || '-' || right(l.tracking_code, 4),
    'guide_number', l.guide_number, 'status', l.status, 'site', l.site, 'position', l.position,
    'carrier', l.carrier, 'other_codes', l.other_codes, 'package_type', l.package_type, 'condition', l.condition,
    'recipient_name', l.recipient_name,
    'customer', json_build_object('customer_id', l.customer_id, 'name', l.customer_name, 'phone', l.customer_phone),
    'announced_at', instant(l.announced_at), 'received_at', instant(l.received_at),
    'delivered_at', instant(l.delivered_at), 'cancelled_at', instant(l.cancelled_at),
    'base_fee', l.base_fee,
    'storage_days', coalesce(l.storage_days, fee.storage_days),
    'storage_fee', coalesce(l.storage_fee, fee.storage_fee),
    'total', coalesce(l.total, fee.total),
    'due', CASE l.status WHEN 'RECEIVED' THEN fee.total ELSE 0 END,
    'paid', l.paid,
    'next_fee_at', CASE l.status WHEN 'RECEIVED' THEN instant(fee.next_fee_at) END,
    'version', l.version)"""


class CustomerOfPackage(BaseModel):
    """Whose parcel it is; the phone is E.164."""

    customer_id: uuid.UUID
    name: str
    phone: str | None


class Package(BaseModel):
    """One parcel from its announcement to its end; money in whole pesos, priced at the answer's own instant."""

    package_id: uuid.UUID
    tracking_code: str
    guide_number: str
    status: Status
    site: str
    position: str | None
    carrier: str | None
    other_codes: list[str]
    package_type: PackageType | None
    condition: Condition | None
    recipient_name: str
    customer: CustomerOfPackage
    announced_at: Instant
    received_at: Instant | None
    delivered_at: Instant | None
    cancelled_at: Instant | None
    base_fee: Pesos
    storage_days: int
    storage_fee: Pesos
    total: Pesos
    due: Pesos
    paid: Pesos
    next_fee_at: Instant | None
    version: int
