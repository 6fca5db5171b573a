"""Fetch what the source knows on as_of and append it to data/raw, by date.

A row of event date D is known `horizon_days` before D and lies in rows/dt=D; its truth is known `delay_days`
after D and lies in labels/ under the date on which it became known. A date that is stored is never
rewritten: where the source now tells another past, the report says so and what was stored stands.
Does not judge or cast values: that is `validate`.
"""

import hashlib
from datetime import date, timedelta
from typing import Any

import pandas as pd

from tasks import stage
from tasks.errors import UserError
from tasks.fetch import fetch
from tasks.files import read_json, read_tables, write_json, write_table
from tasks.params import Product
from tasks.paths import Paths, partition


def ingest(product: Product, as_of: date) -> str:
    """Append the dates that are new and report what has changed among the others.

    Raises UserError when the source lacks a declared column or knows no row.
    """
    paths = Paths(product.name)
    index_file = paths.raw / "index.json"
    index: dict[str, Any] = read_json(index_file) if index_file.exists() else {"rows": {}, "labels": {}, "undated": []}
    frame = _declared_columns(fetch(product, _start(product, index), as_of), product)
    rows = _rows_by_day(frame, product, as_of, index)
    if not index["rows"] and rows.empty:
        raise UserError(f"params.yaml: products.{product.name}.source knows no row up to {product.scored_day(as_of)}; "
                        "check as_of and the source")
    changed = _changed_days(rows, product, index, paths)
    new_rows = _append(rows, "rows", index, paths)
    new_labels = _append(_labels_by_day(frame, product, as_of, index, paths), "labels", index, paths)
    write_json(index_file, index)
    write_json(paths.report("ingest.json"), {
        "as_of": as_of.isoformat(), "rows_new": len(new_rows), "days_new": sorted(set(new_rows["dt"])),
        "labels_new": len(new_labels), "rows_total": sum(entry["rows"] for entry in index["rows"].values()),
        "changed_past": changed, "labels_total": sum(entry["rows"] for entry in index["labels"].values()),
    })
    return (f"{len(new_rows):,} new rows on {new_rows['dt'].nunique()} days, {len(new_labels):,} new labels"
            + (f"; THE PAST HAS CHANGED on {len(changed)} stored days (kept as stored): {_some(list(changed))}" if changed else ""))


def event_day(values: pd.Series) -> pd.Series:
    """The dates of a time column as YYYY-MM-DD, missing where a value is no date."""
    return parse_time(values).dt.strftime("%Y-%m-%d")


def parse_time(values: pd.Series) -> pd.Series:
    """ISO 8601 dates and times as datetime64[s] in UTC without a zone; NaT where a value is none."""
    if pd.api.types.is_numeric_dtype(values):  # a bare number is no date, though pandas would take it for one
        return pd.Series(pd.NaT, index=values.index, dtype="datetime64[s]")
    parsed = pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601")
    return parsed.dt.tz_localize(None).astype("datetime64[s]")


def _start(product: Product, index: dict[str, Any]) -> date | None:
    """The first event date worth fetching: new ones, those whose truth is due, and some to look at once more."""
    if not index["rows"]:
        return None
    settled = product.predict.horizon_days + product.target.delay_days + product.source.recheck_days
    return date.fromisoformat(max(index["rows"])) - timedelta(days=settled)


def _declared_columns(frame: pd.DataFrame, product: Product) -> pd.DataFrame:
    wanted = [*product.input_columns, product.target.name]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise UserError(f"params.yaml: products.{product.name}.source must deliver every declared column, and lacks "
                        f"{', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    return frame[wanted]


def _rows_by_day(frame: pd.DataFrame, product: Product, as_of: date, index: dict[str, Any]) -> pd.DataFrame:
    """The inputs known on as_of, with their date as `dt`; rows without a date count as arriving now, once."""
    rows = frame[product.input_columns].assign(dt=event_day(frame[product.time]))
    last = product.scored_day(as_of).isoformat()
    undated = rows[rows["dt"].isna()].drop(columns="dt")
    digests = pd.Series([f"{digest:016x}" for digest in _row_hashes(undated)], index=undated.index, dtype="str")
    fresh = undated[~digests.isin(index["undated"])].assign(dt=last)
    index["undated"] = sorted({*index["undated"], *digests})
    return pd.concat([rows[rows["dt"] <= last], fresh], ignore_index=True)


def _labels_by_day(frame: pd.DataFrame, product: Product, as_of: date, index: dict[str, Any], paths: Paths) -> pd.DataFrame:
    """The truths known on as_of and not stored yet, with the date on which they became known as `dt`."""
    labels = frame[[*product.key, product.target.name]].assign(day=parse_time(frame[product.time]))
    labels = labels[labels["day"].notna() & labels[product.target.name].notna()]
    known = (labels.pop("day") + pd.Timedelta(days=product.target.delay_days)).dt.strftime("%Y-%m-%d")
    labels["dt"] = known
    labels = labels[labels["dt"] <= as_of.isoformat()]
    stored = read_tables(paths.raw / "labels", list(product.key)) if index["labels"] else None
    if stored is not None:
        labels = labels[~_keys(labels, product).isin(set(_keys(stored, product)))]
    # A truth that comes later than it should became known now: what was known on earlier dates stands.
    return labels.assign(dt=labels["dt"].where(~labels["dt"].isin(index["labels"]), as_of.isoformat()))


def _append(table: pd.DataFrame, kind: str, index: dict[str, Any], paths: Paths) -> pd.DataFrame:
    """Write the dates of `table` that are not stored yet, and return their rows."""
    new = table[~table["dt"].isin(index[kind])]
    for day, group in new.groupby("dt", sort=True):
        part = group.drop(columns="dt")
        write_table(partition(paths.raw / kind, date.fromisoformat(str(day))), part)
        index[kind][str(day)] = {"rows": len(part), "sha256": _digest(part)}
    return new


def _changed_days(rows: pd.DataFrame, product: Product, index: dict[str, Any], paths: Paths) -> dict[str, dict[str, int]]:
    """For each stored date that is now told differently: how many rows came, went and differ."""
    changed = {}
    for day, group in rows[rows["dt"].isin(index["rows"])].groupby("dt", sort=True):
        now = group.drop(columns="dt")
        if _digest(now) != index["rows"][str(day)]["sha256"]:
            then = pd.read_parquet(partition(paths.raw / "rows", date.fromisoformat(str(day))))
            keys_now, keys_then = set(_keys(now, product)), set(_keys(then, product))
            same = set(_row_hashes(now)) & set(_row_hashes(then))
            changed[str(day)] = {"added": len(keys_now - keys_then), "removed": len(keys_then - keys_now),
                                 "differing": max(0, len(keys_now & keys_then) - len(same))}
    return changed


def _keys(table: pd.DataFrame, product: Product) -> pd.Series:
    """One text per row that names it."""
    parts = [table[name].astype("str") for name in product.key]
    return parts[0].str.cat(parts[1:], sep="\x1f") if len(parts) > 1 else parts[0]


def _row_hashes(table: pd.DataFrame) -> list[int]:
    """64-bit hashes of the rows as text, so that they do not depend on the type a reader chose."""
    texts = table.astype("str").astype(object).where(table.notna(), None)
    return [int(value) for value in pd.util.hash_pandas_object(texts, index=False)] if len(table) else []


def _digest(table: pd.DataFrame) -> str:
    """A hash of a date's rows that does not depend on their order."""
    return hashlib.sha256("".join(f"{value:016x}" for value in sorted(_row_hashes(table))).encode()).hexdigest()


def _some(days: list[str]) -> str:
    return ", ".join(days[:3]) + (f" and {len(days) - 3} more" if len(days) > 3 else "")


if __name__ == "__main__":
    stage.main(ingest)
