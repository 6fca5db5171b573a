"""Products as they are declared in params.yaml, read and checked.

`load()` reports every mistake of the file at once, each with rule, value, place and remedy. It imports neither pandas
nor torch nor Great Expectations, because Airflow calls it at every parse. `python -m tasks.params` checks the file.
"""

from model.heads import LOWER_IS_BETTER, METRICS
from tasks.params.answers.horizons import FOR_DAY, HORIZON, HORIZON_COLUMNS, NAIVE, SLICE
from tasks.params.answers.predict import MAX_SHARDS, Predict
from tasks.params.expectations import SEVERITIES, Expectation, columns_named
from tasks.params.gates import BehaviourTest, ExportGates, Gates, SliceGates
from tasks.params.nights import Announce, Publish, SqsQueue, Webhook
from tasks.params.schema import ARRIVED, PARAMS_FILE, RAW_ROW, ROW_ID, Params, Product
from tasks.params.sections import (
    ENGINES,
    MEASURED,
    DriftLimits,
    HashSplit,
    Model,
    Retention,
    Schedule,
    Split,
    Target,
    TimeSplit,
)
from tasks.params.slices import SliceRule, slice_rule
from tasks.params.source import (
    EPOCH_UNITS,
    UNREADABLE_COLUMNS,
    ColumnForm,
    CsvSource,
    EventList,
    ExcelSource,
    FileSource,
    JsonlSource,
    ParquetSource,
    PythonSource,
    Source,
    SqlSource,
)
from tasks.params.yaml_file import load, loads, parse, raw
from tasks.runtime.records import parse_date

__all__ = [
    "ARRIVED",
    "ENGINES",
    "EPOCH_UNITS",
    "FOR_DAY",
    "HORIZON",
    "HORIZON_COLUMNS",
    "LOWER_IS_BETTER",
    "MAX_SHARDS",
    "MEASURED",
    "METRICS",
    "NAIVE",
    "PARAMS_FILE",
    "RAW_ROW",
    "ROW_ID",
    "SEVERITIES",
    "SLICE",
    "UNREADABLE_COLUMNS",
    "Announce",
    "BehaviourTest",
    "ColumnForm",
    "CsvSource",
    "DriftLimits",
    "EventList",
    "ExcelSource",
    "Expectation",
    "ExportGates",
    "FileSource",
    "Gates",
    "HashSplit",
    "JsonlSource",
    "Model",
    "Params",
    "ParquetSource",
    "Predict",
    "Product",
    "Publish",
    "PythonSource",
    "Retention",
    "Schedule",
    "SliceGates",
    "SliceRule",
    "Source",
    "Split",
    "SqlSource",
    "SqsQueue",
    "Target",
    "TimeSplit",
    "Webhook",
    "columns_named",
    "load",
    "loads",
    "parse",
    "parse_date",
    "raw",
    "slice_rule",
]
