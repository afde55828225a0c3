"""The shop's present design, rebuilt: FastAPI and SQLAlchemy on the normalized tables, each parcel priced in Python.

It loads every row for a page. What was made of it later asks the database for one page of rows by OFFSET and LIMIT, and
keeps the finished page in Redis for half a minute, whatever is written meanwhile. Nobody has to sign in.
"""

import json
import math
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.encoders import jsonable_encoder
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import ARRAY, URL, DateTime, ForeignKey, Select, Text, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, selectinload

from db.package_document import Package as PackageAnswer
from infra.clock import system_clock
from infra.settings import Settings

LIFETIME = 30
"""Seconds that a page stays in Redis."""

DAY = timedelta(days=1)


class Base(DeclarativeBase):
    """What the tables have in common."""

    type_annotation_map = {datetime: DateTime(timezone=True), list[str]: ARRAY(Text)}  # noqa: RUF012


class Customer(Base):
    """Whose parcels they are."""

    __tablename__ = "customers"
    customer_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    phone: Mapped[str | None]


class Site(Base):
    """A shop."""

    __tablename__ = "sites"
    site_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    code: Mapped[str]


class Position(Base):
    """A place on a shelf."""

    __tablename__ = "positions"
    position_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    code: Mapped[str]


class Tariff(Base):
    """What parcels cost that were announced from an instant on."""

    __tablename__ = "tariffs"
    tariff_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    base_fee_normal: Mapped[int]
    base_fee_extra_sized: Mapped[int]
    daily_storage: Mapped[int]


class Charge(Base):
    """What a parcel cost when it left."""

    __tablename__ = "charges"
    charge_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    package_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("packages.package_id"))
    storage_days: Mapped[int]
    storage_fee: Mapped[int]


class Payment(Base):
    """What was paid for it."""

    __tablename__ = "payments"
    payment_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    package_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("packages.package_id"))
    amount: Mapped[int]


class Package(Base):
    """A parcel with all that a listing shows of it."""

    __tablename__ = "packages"
    package_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    guide_number: Mapped[str]
    other_codes: Mapped[list[str]]
    tracking_code: Mapped[str]
    customer_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("customers.customer_id"))
    recipient_name: Mapped[str]
    site_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("sites.site_id"))
    carrier: Mapped[str | None]
    package_type: Mapped[str | None]
    condition: Mapped[str | None]
    status: Mapped[str]
    position_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("positions.position_id"))
    tariff_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tariffs.tariff_id"))
    announced_at: Mapped[datetime]
    received_at: Mapped[datetime | None]
    delivered_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    version: Mapped[int]
    customer: Mapped[Customer] = relationship()
    site: Mapped[Site] = relationship()
    position: Mapped[Position | None] = relationship()
    tariff: Mapped[Tariff] = relationship()
    charges: Mapped[list[Charge]] = relationship()
    payments: Mapped[list[Payment]] = relationship()


class PackagePage(BaseModel):
    """A page of the listing; the next one begins at `next_offset`."""

    items: list[PackageAnswer]
    next_offset: int | None
    count: int


def priced(package: Package, now: datetime) -> dict[str, Any]:
    """Show a parcel as the listing does, with what it costs now."""
    tariff = package.tariff
    base_fee = tariff.base_fee_extra_sized if package.package_type == "EXTRA_SIZED" else tariff.base_fee_normal
    if package.status == "RECEIVED" and package.received_at is not None:
        storage_days = max(0, math.ceil((now - package.received_at) / DAY) - 1)
        storage_fee = storage_days * tariff.daily_storage
        due, next_fee_at = base_fee + storage_fee, package.received_at + DAY * (storage_days + 1)
    else:
        storage_days = sum(charge.storage_days for charge in package.charges)
        storage_fee = sum(charge.storage_fee for charge in package.charges)
        due, next_fee_at = 0, None
    code = package.tracking_code
    return {
        "package_id": package.package_id,
        "tracking_code": f"{code[:4]}-{code[4:]}",
        "guide_number": package.guide_number,
        "status": package.status,
        "site": package.site.code,
        "position": package.position.code if package.position else None,
        "carrier": package.carrier,
        "other_codes": package.other_codes,
        "package_type": package.package_type,
        "condition": package.condition,
        "recipient_name": package.recipient_name,
        "customer": {
            "customer_id": package.customer_id,
            "name": package.customer.name,
            "phone": package.customer.phone,
        },
        "announced_at": package.announced_at,
        "received_at": package.received_at,
        "delivered_at": package.delivered_at,
        "cancelled_at": package.cancelled_at,
        "base_fee": base_fee,
        "storage_days": storage_days,
        "storage_fee": storage_fee,
        "total": base_fee + storage_fee,
        "due": due,
        "paid": sum(payment.amount for payment in package.payments),
        "next_fee_at": next_fee_at,
        "version": package.version,
    }


WHOLE = (
    joinedload(Package.customer),
    joinedload(Package.site),
    joinedload(Package.position),
    joinedload(Package.tariff),
    selectinload(Package.charges),
    selectinload(Package.payments),
)


def _narrowed(query: Select[Any], status: list[str]) -> Select[Any]:
    return query.where(Package.status.in_(status)) if status else query


async def one_page(session: AsyncSession, status: list[str], offset: int, limit: int) -> dict[str, Any]:
    """Ask the database for one page of rows and for their number."""
    newest = _narrowed(select(Package), status).order_by(Package.announced_at.desc(), Package.package_id.desc())
    rows = (await session.scalars(newest.options(*WHOLE).offset(offset).limit(limit))).all()
    count = await session.scalar(_narrowed(select(func.count()).select_from(Package), status)) or 0
    now = system_clock()
    following = offset + limit if offset + limit < count else None
    return {"items": [priced(package, now) for package in rows], "next_offset": following, "count": count}


async def every_row(session: AsyncSession, status: list[str], offset: int, limit: int) -> dict[str, Any]:
    """Load every row, price each, and cut the page out of what that gives."""
    rows = (await session.scalars(select(Package).options(*WHOLE))).all()
    now = system_clock()
    shown = [priced(package, now) for package in rows]
    kept = [row for row in shown if not status or row["status"] in status]
    kept.sort(key=lambda row: (row["announced_at"], row["package_id"]), reverse=True)
    following = offset + limit if offset + limit < len(kept) else None
    return {"items": kept[offset : offset + limit], "next_offset": following, "count": len(kept)}


def _engine_url(settings: Settings) -> URL:
    parts = conninfo_to_dict(settings.postgres_dsn)
    host = str(parts.pop("host"))
    database, user = str(parts.pop("dbname")), str(parts.pop("user"))
    return URL.create("postgresql+psycopg", user, database=database, query={"host": host})


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncGenerator[None, None]:
    """Hold sessions and cache open."""
    settings = Settings.load()
    engine = create_async_engine(_engine_url(settings), pool_size=10, max_overflow=0)
    app.state.sessions = async_sessionmaker(engine)
    async with Redis.from_url(settings.redis_dsn) as redis:
        app.state.redis = redis
        yield
    await engine.dispose()


def create_app() -> FastAPI:
    """Make the application."""
    app = FastAPI(lifespan=opened)

    @app.get("/api/v1/packages", response_model=PackagePage)
    async def list_packages(
        request: Request,
        status: Annotated[list[str], Query()] = [],  # noqa: B006 (FastAPI copies it)
        offset: int = 0,
        limit: int = 50,
        cache_control: Annotated[str, Header()] = "",
    ) -> Any:  # noqa: ANN401
        """List parcels; `Cache-Control: no-store` goes past the cache, as the product's does."""
        redis: Redis = request.app.state.redis
        key = f"present:{','.join(status)}:{offset}:{limit}"
        if cache_control != "no-store" and (kept := await redis.get(key)) is not None:
            return json.loads(kept)
        async with request.app.state.sessions() as session:
            page = await one_page(session, status, offset, limit)
        await redis.set(key, json.dumps(jsonable_encoder(page)), ex=LIFETIME)
        return page

    @app.get("/api/v1/every-package", response_model=PackagePage)
    async def list_every_package(
        request: Request,
        status: Annotated[list[str], Query()] = [],  # noqa: B006 (FastAPI copies it)
        offset: int = 0,
        limit: int = 50,
    ) -> Any:  # noqa: ANN401
        """List parcels as the shop's first version does."""
        async with request.app.state.sessions() as session:
            return await every_row(session, status, offset, limit)

    return app
