"""Patches: a member that is left out stays as it is, and null clears what may be empty."""

from typing import Any, Self

from pydantic import model_validator

from infra.fields import Message

UNSET: Any = None
"""The default of a member that may be left out and may not be null: `model_fields_set` tells which were given."""


class Patch(Message):
    """A message that changes what it names."""

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.model_fields_set:
            message = "must name at least one field"
            raise ValueError(message)
        return self

    def given(self) -> dict[str, Any]:
        """What is to change, by field."""
        return self.model_dump(exclude_unset=True)


def before_and_after(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Give both sides of a change for the log, or nothing where there is none."""
    return {"before": {name: before[name] for name in after}, "after": after} if after else {}
