"""Every field of every read model can be changed by hand, each by as little as its type allows."""

import asyncio

from bench.rebuilds import CHANGED, MODELS, columns_of
from db.pools import connect
from infra.settings import Settings
from projections.shadows import READ_MODELS


def test_a_trial_may_take_any_field_of_any_read_model(settings: Settings) -> None:
    """A column of a type that no trial could change would never be looked at."""

    async def types() -> set[str]:
        async with await connect(settings.postgres_dsn, "bench") as conn:
            return {type_ for model in MODELS for _, type_ in await columns_of(conn, model)}

    assert asyncio.run(types()) == CHANGED.keys()
    assert {model.name for model in MODELS} == {model.name for model in READ_MODELS} | {"package_counts"}
