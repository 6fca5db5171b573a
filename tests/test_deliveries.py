"""Oracle: a plain account of which version of each delivery was known on which evening, kept beside the stages.

A month of nights of the example: a folder of compressed daily files with late rows and corrected labels.
"""

import importlib.util
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from builders import report, to_split
from conftest import ROOT

from tasks import params
from tasks.ingest import ingest
from tasks.rows.partitions import read_table
from tasks.runtime.paths import Paths

pytestmark = pytest.mark.long
FIRST_NIGHT, N_NIGHTS = date(2024, 2, 29), 31
JUDGED_EVERY = 6
"""Every night is ingested, and each sixth judged and split as well: what lies between must be caught up with."""
SECOND_LOOK = FIRST_NIGHT + timedelta(days=12)
DECLARED = ROOT / "examples" / "deliveries.yaml"
PATHS = Paths("deliveries")
PARTS = ("train", "val", "test")


def example():
    spec = importlib.util.spec_from_file_location("deliveries", ROOT / "examples" / "deliveries.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Night:
    """What one night left."""

    as_of: date
    ingested: dict
    parts: dict[str, pd.DataFrame] = field(default_factory=dict)
    bytes_of_parts: dict[str, bytes] = field(default_factory=dict)
    n_quarantined: int = 0


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    """Sixty days at once and then night by night; the last is followed by a night of before, made again."""
    folder, nights = tmp_path_factory.mktemp("month"), []
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setenv("LAMPLIGHTER_HOME", str(folder / "home"))
    module = example()
    product = params.load(DECLARED).product("deliveries")
    days = [FIRST_NIGHT + timedelta(days=i) for i in range(N_NIGHTS + 1)]
    module.write_folder(Path("examples/deliveries"), days[0])
    for day in days:
        if day > days[0]:
            content = [line for line in module.lines(day) if line.known == day]
            module.write_file(Path("examples/deliveries"), day, content)
        if (day - days[0]).days % JUDGED_EVERY:
            ingest(product, day)
            nights.append(Night(day, report("ingest.json", "deliveries")))
        else:
            to_split(product, day)
            nights.append(night(day))
    to_split(product, SECOND_LOOK)
    yield nights, night(SECOND_LOOK), module.lines(days[-1])
    patch.undo()


def night(as_of):
    files = {part: PATHS.splits / f"{part}.parquet" for part in PARTS}
    bad = [read_table(file) for file in PATHS.quarantine.rglob("*.parquet") if "labels" not in str(file)]
    return Night(
        as_of=as_of,
        ingested=report("ingest.json", "deliveries"),
        parts={part: read_table(file) for part, file in files.items()},
        bytes_of_parts={part: file.read_bytes() for part, file in files.items()},
        n_quarantined=sum(map(len, bad)),
    )


def judged(nights):
    return [night for night in nights if night.parts]


def versions(lines, until):
    """The versions of each key that were known on an evening, in the order in which they came."""
    known = {}
    for line in lines:
        if line.known <= until:
            known.setdefault(line.number, []).append(line)
    return known


def became_known(lines, as_of):
    """How many rows and labels of which kind became known on one evening."""
    counts = Counter()
    for of_key in versions(lines, as_of).values():
        first, labelled = of_key[0], [line for line in of_key if line.late]
        if first.known == as_of:
            counts["rows_new" if first.day == as_of else "rows_late"] += 1
        if labelled and labelled[-1].known == as_of:
            on_time = labelled[0].known == labelled[0].day + timedelta(days=1)
            counts["labels_corrected" if len(labelled) > 1 else "labels_new" if on_time else "labels_late"] += 1
    return counts


def test_entry_has_at_most_fifteen_lines():
    lines = DECLARED.read_text("utf-8").splitlines()
    assert len(lines[lines.index("products:") + 1 :]) <= 15


def test_history_is_loaded_with_the_labels_of_its_last_evening(month):
    nights, _, lines = month
    known = versions(lines, FIRST_NIGHT)
    assert nights[0].ingested["rows_new"] == len(known)
    assert nights[0].ingested["labels_new"] == sum(bool(of_key[-1].late) for of_key in known.values())


def test_every_night_takes_what_became_known_and_counts_it_by_kind(month):
    nights, _, lines = month
    kinds = ("rows_new", "rows_late", "labels_new", "labels_late", "labels_corrected")
    taken = {
        night.as_of: {kind: night.ingested[kind] for kind in kinds if night.ingested[kind]} for night in nights[1:]
    }
    assert taken == {night.as_of: dict(became_known(lines, night.as_of)) for night in nights[1:]}
    sums = Counter()
    for counts in taken.values():
        sums.update(counts)
    assert all(sums[kind] > 5 for kind in kinds), "else the month shows nothing"
    assert all(night.ingested["rows_changed"] == night.ingested["rows_left"] == 0 for night in nights)


def test_training_is_on_the_newest_labels_known_on_its_night(month):
    nights, _, lines = month
    for night in judged(nights):
        rows = pd.concat(night.parts.values())
        known = [of_key[-1] for of_key in versions(lines, night.as_of).values()]
        assert rows["number"].is_unique
        window = set(rows["number"].str[:6])  # the day, in a key
        assert len(window) > 55
        wanted = {
            line.number: float(line.late == "ja")
            for line in known
            if line.late and line.weight != "unlesbar" and line.number[:6] in window
        }
        assert dict(zip(rows["number"], rows["late"].astype(float), strict=True)) == wanted


def test_words_in_place_of_numbers_go_to_quarantine_and_nothing_else(month):
    nights, _, lines = month
    for night in judged(nights):
        known = [of_key[-1] for of_key in versions(lines, night.as_of).values()]
        assert night.n_quarantined == sum(line.weight == "unlesbar" for line in known)


def test_decimal_commas_and_umlauts_are_the_values_that_they_mean(month):
    nights, _, lines = month
    texts = {line.number: line for line in lines}
    for row in judged(nights)[-1].parts["train"].itertuples():
        line = texts[row.number]
        assert row.weight_kg == pytest.approx(float(line.weight.replace(",", ".")), abs=1e-6)
        assert row.worth_eur == pytest.approx(float(line.worth.replace(".", "").replace(",", ".")), abs=1e-3)
        assert (row.depot, row.size) == (line.depot, line.size)


def test_night_of_before_is_made_again_byte_for_byte_after_later_ones(month):
    nights, looked_again, _ = month
    first_look = next(night for night in nights if night.as_of == SECOND_LOOK)
    assert looked_again.bytes_of_parts == first_look.bytes_of_parts
