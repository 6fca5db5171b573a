"""Fetch what the source knows on as_of and append it to data/raw, by date.

A row of event date D is known `horizon_days` before D and lies in rows/dt=D; its truth is known `delay_days`
after D and lies in labels/ under the date on which it became known. A date that is stored is not
rewritten: where the source now tells another past, the report says so and what was stored stands, unless a
person has the date's rows taken anew (`source.retake`), each time with a reason of its own.
Declared personal data is taken out before anything is written.
Does not judge or cast values: that is `validate`.
"""

import hashlib
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa

from tasks import stage
from tasks.params import UNREADABLE_COLUMNS, Product
from tasks.rows.casting import LABEL_SEPARATOR, as_text, cast_target, cell_text, event_day, has_label, parse_time
from tasks.rows.keys import key_text, row_hashes
from tasks.rows.partitions import partition, partition_day, read_partitions, read_table, write_table
from tasks.rows.personal_data import protect
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json, write_json
from tasks.runtime.paths import Paths
from tasks.sources.fetch import fetch


def ingest(product: Product, as_of: date) -> str:
    """Append the dates that are new and report what has changed among the others.

    Raises UserError when the source lacks a declared column or knows no row.
    """
    paths = Paths(product.name)
    index_file = paths.raw / "index.json"
    index: dict[str, Any] = read_json(index_file) if index_file.exists() else {"rows": {}, "labels": {}, "undated": []}
    last = product.scored_day(as_of).isoformat()
    retaken = _retaken(product, index, last)
    start = _start(product, index, retaken)
    frame = protect(_declared_columns(fetch(product, start, as_of), product), product)
    rows = frame.drop(columns=product.target.name).assign(dt=event_day(frame[product.time]))
    dated, undated = rows[rows["dt"] <= last], rows[rows["dt"].isna()]
    if dated.empty and not any(day <= last for day in index["rows"]):
        raise UserError(
            f"params.yaml: products.{product.name}.source knows no row up to {last}; check as_of and the source"
        )
    if index_file.exists():
        _sweep(index, paths)
    _give_way(retaken, product, index, paths)
    changed = _changed_days(dated, product, start, last, index, paths)
    names = _names_of(undated, product)
    arriving = _arriving(undated, names, dated, index)
    waiting = int((~names.isin(index["undated"])).sum())
    new_rows = _append(pd.concat([dated, arriving], ignore_index=True), "rows", product, index, paths)
    labels, n_changed = _labels_by_day(frame, product, as_of, index, paths)
    new_labels = _append(labels, "labels", product, index, paths)
    for day, reason in retaken.items():
        if day in index["rows"]:
            index["rows"][day]["retaken"] = reason
    index["as_of"] = max(index.get("as_of", ""), as_of.isoformat())
    write_json(index_file, index)
    _sweep(index, paths)  # a day that was taken anew, and of which the source knows no row any more
    write_json(
        paths.report("ingest.json"),
        {
            "as_of": as_of.isoformat(),
            "rows_delivered": len(rows),
            "rows_new": len(new_rows),
            "rows_of_stored_days": len(dated) + len(undated) - len(new_rows) - waiting,
            "rows_waiting_without_a_date": waiting,
            "rows_later_than_the_night": len(rows) - len(dated) - len(undated),
            "days_new": sorted(set(new_rows["dt"])),
            "days_retaken": retaken,
            "labels_new": len(new_labels),
            "labels_changed": n_changed,
            "rows_total": sum(entry["rows"] for entry in index["rows"].values()),
            "changed_past": changed,
            "labels_total": sum(entry["rows"] for entry in index["labels"].values()),
        },
    )
    told = f"{len(new_rows):,} new rows on {new_rows['dt'].nunique()} days, {len(new_labels):,} new labels"
    if changed:
        told += f"; THE PAST HAS CHANGED on {len(changed)} stored days (kept as stored): {_some(list(changed))}"
    if n_changed:
        told += f"; {n_changed:,} STORED LABELS ARE TOLD DIFFERENTLY NOW (kept as stored)"
    return told


def _retaken(product: Product, index: dict[str, Any], last: str) -> dict[str, str]:
    """The stored dates that a person has taken anew and that were not yet, each with the reason."""
    return {
        day: reason
        for day, reason in product.source.retake.items()
        if day <= last and day in index["rows"] and index["rows"][day].get("retaken") != reason
    }


def _give_way(retaken: dict[str, str], product: Product, index: dict[str, Any], paths: Paths) -> None:
    """Forget the rows of these dates, also those that came without a date; their files until others are written."""
    for day in retaken:
        rows = read_table(partition(paths.raw / "rows", date.fromisoformat(day)))
        names = _names_of(rows[parse_time(rows[product.time]).isna()], product)
        index["undated"] = sorted({*index["undated"]} - {*names})
        del index["rows"][day]


def _start(product: Product, index: dict[str, Any], retaken: dict[str, str]) -> date | None:
    """The first event date that a Python source is asked for: new ones, those whose truth is due, some once more."""
    if not index["rows"] or product.source.kind != "python":
        return None
    settled = product.predict.horizon_days + product.target.delay_days + product.source.recheck_days
    first = date.fromisoformat(max(index["rows"])) - timedelta(days=settled)
    return min([first, *map(date.fromisoformat, retaken)])


def _declared_columns(frame: pd.DataFrame, product: Product) -> pd.DataFrame:
    """What is declared, and what tells of rows that cannot be read."""
    wanted = [*product.input_columns, product.target.name]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        source = f"params.yaml: products.{product.name}.source"
        if len(missing) == len(wanted):  # what stands there may be a row, and is not shown
            raise UserError(
                f"{source} must deliver every declared column, and delivers none of {', '.join(wanted)} in its "
                f"{len(frame.columns)} columns; is its first line a header, and source.delimiter right?"
            )
        raise UserError(
            f"{source} must deliver every declared column, and lacks "
            f"{', '.join(missing)}; it has {', '.join(map(str, frame.columns))}"
        )
    return frame[[*wanted, *(name for name in UNREADABLE_COLUMNS if name in frame.columns)]]


def _sweep(index: dict[str, Any], paths: Paths) -> None:
    """Remove what a run that was killed left behind: files of dates that were never committed to the index."""
    for kind in ("rows", "labels"):
        for file in [*(paths.raw / kind).glob(".dt=*"), *(paths.raw / kind).glob("dt=*.parquet")]:
            if file.name.startswith(".") or partition_day(file).isoformat() not in index[kind]:
                file.unlink()


def _arriving(undated: pd.DataFrame, names: pd.Series, dated: pd.DataFrame, index: dict[str, Any]) -> pd.DataFrame:
    """Rows without a date: each counts as arriving once, with the newest day that arrives.

    They wait for one: a day of theirs alone would be stored, and its rows come too late.
    """
    arriving = dated["dt"][~dated["dt"].isin(index["rows"])]
    fresh = ~names.isin(index["undated"]) & (len(arriving) > 0)
    index["undated"] = sorted({*index["undated"], *names[fresh]})
    return undated[fresh].assign(dt=arriving.max())


def _names_of(undated: pd.DataFrame, product: Product) -> pd.Series:
    """A name for each row without a date: a hash of it, and which of several equal ones it is.

    Of what every version of a declaration has: key and time, or the line that cannot be read.
    """
    told = undated.reindex(columns=list(dict.fromkeys([*product.key, product.time, *UNREADABLE_COLUMNS])))
    names = pd.Series([f"{digest:016x}" for digest in row_hashes(told)], index=undated.index, dtype="str")
    turn = names.groupby(names).cumcount().astype("str")
    return names.where(turn == "0", names + "#" + turn)


def _labels_by_day(
    frame: pd.DataFrame, product: Product, as_of: date, index: dict[str, Any], paths: Paths
) -> tuple[pd.DataFrame, int]:
    """The truths known on as_of and not stored yet, with the date on which they became known as `dt`.

    And how many of those that are stored are another truth now, or none.
    """
    known = parse_time(frame[product.time]) + pd.Timedelta(days=product.target.delay_days)
    labels = frame[[*product.key, product.target.name]].assign(dt=known.dt.strftime("%Y-%m-%d"))
    keys, told = key_text(frame, product.key), has_label(frame[product.target.name])
    files = [partition(paths.raw / "labels", date.fromisoformat(day)) for day in index["labels"]]
    stored = read_partitions(files, [*product.key, product.target.name])
    then = _truths(stored, key_text(stored, product.key), product)
    again = keys.isin(then.index)
    # Compared as dates: the truth of the last day of 9999 is known in a year of five digits.
    due = told & (known.dt.normalize() <= pd.Timestamp(as_of))
    now = _truths(labels[again & due], keys[again & due], product)
    withdrawn = set(keys[again & ~told].dropna()) - set(keys[told])
    n_changed = int((now != then[now.index]).sum()) + len(withdrawn)
    labels = labels[due & ~again]
    # A truth that comes later than it should became known now: what was known on earlier dates stands.
    late = labels["dt"].isin(index["labels"]) | (labels["dt"] <= index.get("as_of", ""))
    return labels.assign(dt=labels["dt"].where(~late, as_of.isoformat())), n_changed


def _truths(labels: pd.DataFrame, keys: pd.Series, product: Product) -> pd.Series:
    """The first truth of each key, as text whatever type a reader chose for it; by the key's text."""
    texts = as_text(cast_target(labels[product.target.name], product.target)[0])
    truths = texts.where(texts.notna(), "").set_axis(keys)
    return truths[~truths.index.duplicated()]


def _append(table: pd.DataFrame, kind: str, product: Product, index: dict[str, Any], paths: Paths) -> pd.DataFrame:
    """Write the dates of `table` that are not stored yet, and return their rows."""
    new = table[~table["dt"].isin(index[kind])]
    for day, group in new.groupby("dt", sort=True):
        part = group.drop(columns="dt")
        write_table(partition(paths.raw / kind, date.fromisoformat(str(day))), part.apply(_storable))
        told = _dated(part, product) if kind == "rows" else part
        index[kind][str(day)] = {"rows": len(part), "sha256": _digest(told)}
    return new


def _changed_days(
    dated: pd.DataFrame, product: Product, start: date | None, last: str, index: dict[str, Any], paths: Paths
) -> dict[str, dict[str, int]]:
    """For each stored date that is now told differently: how many rows came, went and differ.

    Compared are the columns that were declared then and are now.
    """
    now_by_day = {str(day): group.drop(columns="dt") for day, group in dated.groupby("dt", sort=True)}
    nothing = dated.drop(columns="dt").head(0)
    changed = {}
    for day, stored in sorted(index["rows"].items()):
        asked = day <= last and (start is None or day >= start.isoformat())
        now = now_by_day.get(day, nothing)
        if (asked or len(now)) and _digest(now) != stored["sha256"]:
            then = read_table(partition(paths.raw / "rows", date.fromisoformat(day)))
            shared = [name for name in now if name in then]
            then = _dated(then.reindex(columns=now.columns), product)
            if _digest(now[shared]) == _digest(then[shared]):
                continue
            keys_now, keys_then = set(key_text(now, product.key)), set(key_text(then, product.key))
            same = set(row_hashes(now[shared])) & set(row_hashes(then[shared]))
            changed[day] = {
                "added": len(keys_now - keys_then),
                "removed": len(keys_then - keys_now),
                "differing": max(0, len(keys_now & keys_then) - len(same)),
            }
    return changed


def _dated(rows: pd.DataFrame, product: Product) -> pd.DataFrame:
    return rows[parse_time(rows[product.time]).notna()]


def _storable(values: pd.Series) -> pd.Series:
    """A column that Parquet can hold: one that mixes types becomes text, for `validate` to judge cell by cell."""
    if values.dtype == object:
        try:
            # Of decimals Arrow would give each cell the digits of the longest one.
            if not values.map(lambda cell: isinstance(cell, dict | Decimal)).any():
                pa.array(values, from_pandas=True)
                return values
        except (pa.ArrowException, OverflowError):
            pass
        return values.map(
            lambda cell: LABEL_SEPARATOR.join(map(str, cell)) if isinstance(cell, list) else cell_text(cell),
            na_action="ignore",
        )
    return values


def _digest(table: pd.DataFrame) -> str:
    """A hash of a date's rows that does not depend on their order."""
    return hashlib.sha256("".join(f"{value:016x}" for value in sorted(row_hashes(table))).encode()).hexdigest()


def _some(days: list[str]) -> str:
    return ", ".join(days[:3]) + (f" and {len(days) - 3} more" if len(days) > 3 else "")


if __name__ == "__main__":
    stage.main(ingest)
