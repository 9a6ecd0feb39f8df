"""`[hospital]`: what a site says about its own studies."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from toolkit.config.service import ServiceSettings
from toolkit.frozen import Frozen


def _to_tuple(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value  # TOML knows no tuples


Patterns = Annotated[tuple[str, ...], BeforeValidator(_to_tuple)]


class SeriesNames(Frozen):
    """`[hospital.series]`: the site's own names, each a word or a regular expression for SeriesDescription."""

    flair: Patterns = ()
    t1: Patterns = Field((), description="before contrast")
    t1ce: Patterns = Field((), description="after contrast")
    t2: Patterns = ()
    ignore: Patterns = Field((), description="series that are never taken")

    @field_validator("flair", "t1", "t1ce", "t2", "ignore")
    @classmethod
    def _can_be_searched(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            if not pattern.strip():
                raise ValueError("an empty name matches every series")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"'{pattern}' is no regular expression: {error}") from None
        return patterns

    @property
    def given(self) -> dict[str, tuple[str, ...]]:
        """Modality (or `ignore`) -> patterns, for those that have any."""
        return {name: patterns for name, patterns in self if patterns}


class HospitalSettings(ServiceSettings):
    """`[hospital]`."""

    series: SeriesNames = SeriesNames()
