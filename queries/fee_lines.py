"""Why a parcel costs what it does, line by line, as one parcel's fee and the public's tracking both tell it."""

from pydantic import BaseModel, Field

from infra.fields import Pesos

# Of what is only announced there is no storage yet; both need `l` joined with PRICED.
FEE_LINES = """CASE WHEN l.received_at IS NULL THEN json_build_array(line.base)
                ELSE json_build_array(line.base, line.storage) END"""

EXPLAINED = """CROSS JOIN LATERAL (SELECT
    json_build_object('label', 'Tarifa base', 'quantity', 1, 'unit_amount', l.base_fee, 'amount', l.base_fee) AS base,
    json_build_object('label', 'Días de bodegaje después de las primeras 24 horas',
        'quantity', coalesce(l.storage_days, fee.storage_days), 'unit_amount', l.daily_storage,
        'amount', coalesce(l.storage_fee, fee.storage_fee)) AS storage) AS line"""


class FeeLine(BaseModel):
    """One reason for an amount, in the words that a customer is shown."""

    label: str = Field(examples=["Tarifa base"])
    quantity: int = Field(examples=[1])
    unit_amount: Pesos
    amount: Pesos
