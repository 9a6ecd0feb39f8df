"""`[commission]` and `[monitor]`: what a site asks of a model."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from toolkit.frozen import FrozenFinite


def _to_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # TOML knows no tuples


Range = Annotated[tuple[float, float], BeforeValidator(_to_tuple)]


class CommissionSettings(FrozenFinite, strict=True):
    """`[commission]`: what a model has to reach on the site's own patients."""

    refused: float = Field(0.1, ge=0, le=1, description="largest share of patients that cannot be graded")
    unfamiliar: float = Field(0.25, ge=0, le=1, description="largest share of patients called unfamiliar")
    auc: float = Field(0.75, ge=0.5, le=1, description="least AUC")
    auc_loss: float = Field(0.1, ge=0, le=0.5, description="how far the AUC may be below the model card's")
    intercept: Range = Field((-0.7, 0.7), description="of the calibration; 0 is perfect")
    slope: Range = Field((0.5, 2.0), description="of the calibration; 1 is perfect")
    observed_expected: Range = Field((0.67, 1.5), description="HGG found over HGG expected; 1 is perfect")
    coverage: float = Field(0.8, ge=0, le=1, description="least share of each grade's patients whose set holds it")
    seconds: float = Field(60.0, gt=0, description="longest median time of one patient")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        for name in ("intercept", "slope", "observed_expected"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} = [{low}, {high}] holds nothing; the first number is the smaller one")
        return self


class MonitorSettings(FrozenFinite, strict=True):
    """`[monitor]`: how a model is watched."""

    false_alarms: float = Field(0.05, gt=0, lt=0.5, description="chance of any false alarm within `horizon` patients")
    horizon: int = Field(400, ge=50, le=5000, description="patients of a quiet year")
    refused: float = Field(0.1, gt=0, lt=1, description="share of refused patients that is still no alarm")
    odds: float = Field(2.0, ge=1, description="factor by which the odds of HGG may be off before that is an alarm")
    period: int = Field(50, ge=10, description="patients of a row in the tables")
