"""What all our records have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A record that cannot be changed and takes no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FrozenFinite(Frozen):
    """The same; a number that is not finite is refused."""

    model_config = ConfigDict(allow_inf_nan=False)
