"""Settings: one frozen tree, read from `grade.toml`, presets named by `strategy`, single values by `--set a.b=c`."""

from toolkit.config.first import write_first_settings
from toolkit.config.life import CommissionSettings, MonitorSettings
from toolkit.config.load import (
    calibration_settings,
    differences,
    dump_settings,
    export_settings,
    load_settings,
    parse_settings,
)
from toolkit.config.presets import PRESETS
from toolkit.config.settings import (
    Architecture,
    AugmentSettings,
    CalibrationSettings,
    DataSettings,
    ExportSettings,
    Grid,
    LabelTable,
    NetworkSettings,
    PredictSettings,
    Readers,
    Settings,
    Strategy,
    TrainingSettings,
    parse_rule,
)

__all__ = [
    "PRESETS",
    "Architecture",
    "AugmentSettings",
    "CalibrationSettings",
    "CommissionSettings",
    "DataSettings",
    "ExportSettings",
    "Grid",
    "LabelTable",
    "MonitorSettings",
    "NetworkSettings",
    "PredictSettings",
    "Readers",
    "Settings",
    "Strategy",
    "TrainingSettings",
    "calibration_settings",
    "differences",
    "dump_settings",
    "export_settings",
    "load_settings",
    "parse_rule",
    "parse_settings",
    "write_first_settings",
]
