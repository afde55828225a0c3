"""A customer as the read side shows one, on a page of many and alone."""

from pydantic import BaseModel

from db.documents import Customer

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


class CustomerWithCounts(Customer):
    """A customer, with how many packages they have in each status."""

    by_status: CountsByStatus
