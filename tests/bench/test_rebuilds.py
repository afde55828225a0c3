"""Every field of every read model can be changed by hand, each by as little as its type allows."""

import asyncio

from bench.rebuilds import CHANGED, MODELS, Trial, columns_of
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


def test_a_trial_is_found_where_its_row_and_its_field_are_named() -> None:
    """Another row, or another field of this one, is no find; a count has one field alone."""
    listing, counts = MODELS[0], MODELS[-1]
    trial = Trial(listing, "paid", "0193", "(0,1)", 5)
    assert trial.is_in("package_listing 0193: paid is 0, and should be 5")
    assert not trial.is_in("package_listing 0193: total is 0, and should be 5")
    assert not trial.is_in("package_listing 0194: paid is 0, and should be 5")
    assert Trial(counts, "count", "PRINCIPAL RECEIVED", "(0,1)", 5).is_in(
        "package_counts PRINCIPAL RECEIVED: is 6, and should be 5"
    )
