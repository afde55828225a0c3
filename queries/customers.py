"""A customer as the read side shows one, on a page of many and alone."""

import uuid

from pydantic import BaseModel

from infra.fields import Instant

CUSTOMER_DOCUMENT = """json_build_object(
    'customer_id', c.customer_id, 'name', c.name, 'phone', c.phone, 'email', c.email, 'document', c.document,
    'building', c.building, 'tower', c.tower, 'apartment', c.apartment, 'notes', c.notes,
    'created_at', instant(c.created_at), 'version', c.version,
    'by_status', (
        SELECT json_build_object(
            'ANNOUNCED', count(*) FILTER (WHERE l.status = 'ANNOUNCED'),
            'RECEIVED', count(*) FILTER (WHERE l.status = 'RECEIVED'),
            'DELIVERED', count(*) FILTER (WHERE l.status = 'DELIVERED'),
            'CANCELLED', count(*) FILTER (WHERE l.status = 'CANCELLED'))
        FROM package_listing AS l WHERE l.customer_id = c.customer_id))"""


class CountsByStatus(BaseModel):
    """How many parcels there are in each status."""

    ANNOUNCED: int
    RECEIVED: int
    DELIVERED: int
    CANCELLED: int


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
    by_status: CountsByStatus
