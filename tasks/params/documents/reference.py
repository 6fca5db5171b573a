"""The reference of params.yaml for people, docs/products.md, made from the same texts as the JSON Schema."""

import json
from collections.abc import Iterator
from pathlib import Path

from pydantic.json_schema import JsonSchemaValue

from model.settings import PRESETS, NetworkSettings
from tasks.params.documents.json_schema import json_schema
from tasks.params.messages import fields_of

REFERENCE_FILE = Path("docs/products.md")
_HEAD = """# Products

<!-- Made by `make schema` from tasks/params: change the texts there. -->

A product is an entry under `products:` in `params.yaml`, and nothing else: no Python for CSV, Parquet, JSON Lines and
SQL. A short one:

```yaml
products:
  parcels:
    source: {kind: csv, url: parcels.csv}
    key: [parcel_id]
    time: day
    columns: {depot: category, weight_kg: number, handed_in: time}
    target: {name: late, task: binary, delay_days: 1}
```

* `make product NAME=parcels FROM=parcels.csv TARGET=late` proposes such an entry from a file or folder as
  it is: compressed, with names in any language, decimal commas, words for missing, dates of any form.
* `.venv/bin/python -m tasks.params` checks the file and tells every mistake at once; `make setup` makes `.venv`.
* `.venv/bin/python -m tasks.params parcels --full` shows the entry with every default and what each key means.
* Editors complete and check the file by [params.schema.json](../params.schema.json), which its first line names.

## Without a date, without a key

Leave out `time` and a row's date is the `as_of` on which it was first seen, in a column `arrived`. Everything that is
in the source on the first night counts as new that night. There is no split by time and no horizon: `split.by` is
`hash`, `predict.horizon_days` is 0, and a night scores the rows that arrived on its `as_of`.

Leave out `key` and a row is named by the hash of its cells and, among equal rows, by its number, in a column `row_id`.
A row that changes is another row: the one before counts as withdrawn, and its label, its prediction and what a person
decided about it do not come with it. Add a key as soon as the source has one.

## What a time gives

Of each `time` among the columns the model reads the minute of the day, the weekday and the day of the year, as waves,
so that midnight and New Year are no jumps; a cycle is read only where the training rows span it whole, one day, one
week or one year, since of any other nobody has seen how it goes on. Beside these it reads the trend: how late a time is
between the first and the last of the training rows. A later time counts as the last of them: what comes after is not
drawn on from what went before. Times are read as the clock of `time_zone` shows them.

## What happened before: events

```yaml
products:
  customer-value:
    source: {kind: csv, url: customers.csv}                       # a row for each customer and day that is scored
    sources: {purchases: {kind: parquet, url: purchases.parquet}}  # a row for each purchase
    key: [customer_id, day]
    time: day
    columns:
      plan: category
      history: {kind: events, from: purchases, by: customer_id, time: bought, fields: {amount: number, shop: category}}
    target: {name: buys, task: binary, delay_days: 30}            # whether they buy in the 30 days after
```

Each row gets the purchases of its customer that were known on its own day (`predict.horizon_days` earlier, where there
is a horizon; up to the row's time, where it has one), so that training rows see no more than a night will: no window
functions in SQL. The newest `max_events` are kept, 64 by default. Without `from` and `by` the rows' own source has the
list in the column: a list of structs in Parquet, of objects in JSON Lines, or the same as JSON text in CSV, such as
`[{"bought": "2024-02-07", "amount": 12.5, "shop": "north"}]`. An event that is later than its row, or has no time, or a
field of another type, puts the row into quarantine with that reason. An empty list and an empty cell are no events.

Every event is a token: how long ago it was and how long after the one before, its numbers and its categories, and its
place counted from the newest. Beside the tokens, boosted trees, the line and the baseline read what a person would
count: how many there were in 7, 30, 90, 180 and 365 days, days since the newest and the oldest, gaps, and sums.

## Unusual rows, without labels

```yaml
products:
  unusual-orders:
    source: {kind: csv, url: orders.csv}
    key: [order_id]
    time: day
    columns: {country: category, currency: category, article: category, price: number, ordered_at: time}
    target: {task: reconstruct}          # no name and no label: each row is learnt from by itself
```

The network learns to fill in what is hidden of a row, of another share of the cells each time. A night then hides each
cell alone and says of a row: `surprise_bits`, the sum over all columns of the base-2 logarithm of one over the
probability of the cell; `surprise_percentile` among the training rows; `prediction`, the column whose cell has most
bits beyond what was to be expected there; `surprise_cell`, what that holds, and `surprise_expected`, the likeliest
value or range. A row may be unusual and right: what it means, people decide. Columns are each a category, a number
(read through its bins: what lies in the same bin as the usual is not unusual) or a time (its hour, and weekday and
month where the rows span them); texts, images and contexts are refused so far. Name columns that decide one another:
one that nothing decides, such as a serial number, is as surprising in every row and hides the others.

Held-out rows are measured at once, since each comes twice: as it is, and with one cell changed for another row's of the
same column that differs. `auc` says how well the surprise tells them apart, `column_named` of how many the right column
is named, `bits_per_row` how surprising rows are as they came; evaluation.json has all of it by column, beside a
baseline that counts which values of two columns occur together. In a night nobody has changed a cell, so nights have no
`auc`; where `gates.metric` is `bits_per_row`, they are measured by that.

## Lists of what is likeliest next

```yaml
products:
  next-article:
    source: {kind: parquet, url: visits.parquet}    # a row for each customer and day that is scored
    key: [customer_id, day]
    time: day
    columns: {plan: category, bought_1: category, bought_2: category, bought_3: category}
    target: {name: bought, task: next_item, history: [bought_1, bought_2, bought_3], exclude: [bought_1], delay_days: 1}
    predict: {top: 10}
```

A night gives each row `items`, the ten that are likeliest, with their `scores`; `prediction` is the first, and `is_new`
says that the row has no history, so that its other columns alone decide. Items are scored by the vectors by which the
history is read, and by what of the history is copied; a list never has an item twice, nor one of the row's columns in
`exclude`. An item that no training row had cannot be on a list before the next training.

`ndcg` (the place on the list), `hit_rate`, `mrr` and `coverage` (of the items that held-out rows had, the share that is
on some list) are those of lists of `top` items. Hold out by time: lists are of what comes next, and a customer's later
visits tell of the earlier ones. The baseline mixes the row's own history, what follows its last item, what is frequent
and what is frequent beside each other column, by shares that the validation rows decide.

## Texts that are written from rows

```yaml
products:
  headline-drafts:
    source: {kind: jsonl, url: articles.jsonl}
    key: [article_id]
    time: arrived
    columns: {desk: category, text: text}
    target: {name: headline, task: generate, delay_days: 1}    # a text, as a person wrote it
    predict: {text: {max_tokens: 24, temperature: 0.7, stop: ["\\n"]}}
    gates: {metric: bits_per_byte, limit: 2.3, max_behind_baseline: 0.0}
```

The network reads the row and goes on by the text, subword by subword: one of its vocabulary, or one that is copied from
the row's own texts, where names and numbers are. It learns from the labels' subwords alone; labels are kept as they
are, letter by letter. A night has `prediction`, the text; `tokens`, its subwords by their numbers in tokenizer.json;
`mean_log_probability` of these, the natural logarithm; and `ended`, false where the text was cut at `max_tokens`. At
`temperature` 0 the likeliest subword is always next. Above, draws follow from `seed`, the row's key and the place in
its text, and every array has a shape that the row decides alone: so a text depends neither on its shard nor on the rows
beside it, and a night comes again byte for byte. A word of `stop` ends a text and is no part of it.

`bits_per_byte` says how well the labels of held-out rows are foreseen, all their bits by all their bytes; the baseline
counts which subword follows which three (Kneser-Ney), in the labels and texts of the training rows. `rouge_l` is the F1
of the longest common subsequence of words with the label, and the baseline writes how the row's first text begins.
`unsupported` is the share of texts with a number, or a capitalised word after the first, that the row does not have.
What is written are drafts: nothing runs them or believes them, and people should read them first. Where
`gates.metric` is `rouge_l`, nights are measured by that once labels have come; a night does not hold what
`bits_per_byte` needs. `model.init` may name a language model, which then writes in place of a network of its own:
[where the weights start](pretraining.md#texts-by-an-imported-language-model). Columns of kind context, reasons,
behaviour tests, weights of the BERT family, a second training and other engines than ONNX Runtime are refused.

## Between what and what: quantiles of a number

```yaml
products:
  prices:
    source: {kind: csv, url: offers.csv}
    key: [offer_id]
    time: offered
    columns: {town: category, rooms: number, square_metres: number, description: text}
    target: {name: price, task: regression, delay_days: 30}
    predict: {quantiles: [0.1, 0.5, 0.9]}
    gates: {metric: pinball, limit: 20000}     # at most; without it r2 of the prediction decides, as ever
```

`prediction` stays the mean. Beside it a night has `quantile_10`, `quantile_50` and `quantile_90`: of 100 prices 10 are
meant to lie below the first and 10 above the last, so that the two hold 80. They never cross. Encoder and boosted trees
learn each of them, so that they lie further apart where prices spread more; a line lends its own spread. Then they are
widened and moved until they hold what they should on rows that were not fitted.

evaluation.json measures them on held-out rows beside the baseline's, boosted trees of each quantile: `pinball` is their
mean loss, in the unit of the label, and rewards an interval for being narrow and right at once; `coverage_error` is how
far the share of labels below a quantile lies from its level; `interval_coverage` and `interval_width` are those of the
outermost two. `per_class` has the same for each quantile. Training takes several times as long with quantiles.

## Numbers ahead: tomorrow, in a week, in four weeks

```yaml
products:
  sales-ahead:
    source: {kind: csv, url: sales.csv}              # a row for each shop and day: shop, day, town, units
    sources: {sales: {kind: csv, url: sales.csv}}    # the same once more: the past of each shop
    key: [shop, day]
    time: day
    columns:
      shop: category
      town: category
      past: {kind: events, from: sales, by: shop, time: day, fields: {units: number}, max_events: 56}
    target: {name: units, task: regression, delay_days: 1}
    predict: {horizon_days: [1, 7, 28], quantiles: [0.1, 0.5, 0.9]}
    gates: {metric: mae, limit: 20, max_behind_baseline: 0.0}
```

The night of `as_of` scores the rows of `as_of`, each once for every horizon, and so has the columns `horizon_days` and
`for_day`, the date that is predicted. Both are inputs of the one model, which learns all horizons together; lists of
`binary`, `multiclass` and `multilabel` targets go the same way. The label of a row of day D and horizon 7 is that of
the row of day D + 7 whose key is the same but for the time, so the time is part of the key. A day that a series lacks
is a label that is never known, and a series that ends stops being predicted. Events whose `fields` name the target end
`delay_days` before the row, since what is learnt of a day later is not known on its evening.

No look ahead: held-out days are the newest of which every horizon's label is known, and a part learns from labels alone
that were known before the next part begins. Training so ends the longest horizon before validation does, and that
before test: `split` says how many rows lie between. Days as observations overlap where horizons are long, so intervals
are rather narrow there. The baseline is the seasonal naive one: the newest label of the predicted weekday that was
known on the row's day, with quantiles as far from it as those of the rows that were learnt from. Each horizon is a
slice (`horizon`): the report, the gates and every night's truth have its figures by itself. A night is measured for a
horizon once that has come, and as a whole once all have.

## What errors cost

```yaml
products:
  churn:
    target: {name: churned, task: binary}
    predict: {costs: {false_positive: 1, false_negative: 5}}     # a missed customer costs five calls for nothing
    gates: {metric: expected_cost, limit: 0.6}                   # at most, on held-out rows
```

The threshold is then measured on validation rows and comes with the model; `prediction` follows it, `probability` stays
as it is. `threshold: measured` without costs makes the most of F1. For `multiclass` the costs are a matrix,
`costs: {mail: {spam: 10}, spam: {mail: 1}}`, by true and then predicted class, and the class of least expected cost is
predicted. evaluation.json says what that is worth on held-out rows, beside 0.5 or the likeliest class, and
evaluation.png shows the curve.

## Every key
"""


PLACES = {
    "Product": "A product",
    "CsvSource": "`source` of kind csv",
    "ParquetSource": "`source` of kind parquet",
    "JsonlSource": "`source` of kind jsonl",
    "ExcelSource": "`source` of kind excel",
    "SqlSource": "`source` of kind sql",
    "PythonSource": "`source` of kind python",
    "ColumnForm": "`source.forms`, each",
    "EventList": "`events`, each",
    "Target": "`target`",
    "Predict": "`predict`",
    "GenerationSettings": "`predict.text`",
    "Expectation": "`expectations`, each",
    "DriftLimits": "`drift`",
    "TimeSplit": "`split` by time",
    "HashSplit": "`split` by hash",
    "Model": "`model`",
    "NetworkSettings": "`model.network`",
    "PretrainingSettings": "`model.pretrain`",
    "TrainingSettings": "`model.train`",
    "Gates": "`gates`",
    "SliceGates": "`gates.slices`",
    "ExportGates": "`gates.export`",
    "BehaviourTest": "`behaviour`, each",
    "Schedule": "`schedule`",
    "Ready": "`schedule.ready`",
    "Publish": "`publish`",
    "Webhook": "`publish.announce` of kind webhook",
    "SqsQueue": "`publish.announce` of kind sqs",
    "Monitor": "`monitor`",
    "Rollback": "`monitor.rollback`",
    "Retention": "`retention`",
}
"""Where the parts of a product are written, in the order of the reference."""


def text() -> str:
    """Return the reference as the file's text."""
    definitions = json_schema()["$defs"]
    assert definitions.keys() == PLACES.keys(), "every part of a product must have a place in the reference"
    sections = [line for name, place in PLACES.items() for line in _section(place, definitions[name])]
    return "\n".join([_HEAD, *sections, *_presets()]) + "\n"


def _section(place: str, definition: JsonSchemaValue) -> Iterator[str]:
    yield from (f"### {place}", "", " ".join(definition["description"].split()), "")
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for key, content in definition["properties"].items():
        if not content.get("deprecated"):
            default = "**needed**" if key in definition.get("required", ()) else _default(content)
            yield f"| `{key}` | {_value(content)} | {default} | {_cell(content['description'])} |"
    yield ""


def _value(content: JsonSchemaValue) -> str:
    """Return what may be written: a type, its bounds, or its choices."""
    if "const" in content:
        return f"`{content['const']}`"
    if "enum" in content:
        return ", ".join(f"`{name}`" for name in content["enum"])
    if "anyOf" in content:
        first, *others = (each for each in content["anyOf"] if each.get("type") != "null")
        lists = [_value(each) for each in others if each.get("type") == "array" and first.get("type") == "integer"]
        return ", or ".join([_value(first), *lists])
    if "$ref" in content or "oneOf" in content:
        return "a mapping, see below"
    kind = content.get("type")
    if kind == "array":
        items = content["items"]
        if items.get("type") == "integer":
            return "a list of whole numbers"
        return "a list, see below" if "$ref" in items else f"a list of {_value(items)}s".replace("texts", "text")
    if kind == "object":
        values = content.get("additionalProperties")
        return f"names, each {_value(values)}" if isinstance(values, dict) and values else "a mapping"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    bounds = [f"{sign} {content[key]:g}" for key, sign in _BOUNDS.items() if key in content]
    return " ".join([words[str(kind)], ", ".join(bounds)]).strip()


_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _default(content: JsonSchemaValue) -> str:
    default = content.get("default")
    return "" if default in (None, [], {}) else f"`{json.dumps(default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _presets() -> list[str]:
    fields = list(fields_of(NetworkSettings))
    sizes = {name: [str(getattr(preset, key)) for key in fields] for name, preset in PRESETS.items()}
    return [
        *("### Presets", "", "Sizes of the network, by the name in `model.preset`.", ""),
        f"| preset | {' | '.join(f'`{key}`' for key in fields)} |",
        "|---" * (len(fields) + 1) + "|",
        *(f"| `{name}` | {' | '.join(values)} |" for name, values in sizes.items()),
    ]
