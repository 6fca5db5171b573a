"""Oracle: scikit-learn on the published rows joined to their labels by pandas; a real S3 server."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest
from builders import a_product, night_inputs
from sklearn.metrics import f1_score, roc_auc_score
from test_publish import AS_OF, url  # noqa: F401 (url is a fixture)

from model.heads import head_of
from tasks.monitor import monitor
from tasks.monitoring.contracts import BrokenRule, NightRecord, Predictions
from tasks.monitoring.nights import is_due, measure_past
from tasks.monitoring.past import Past, nights
from tasks.monitoring.status import read_status
from tasks.publication.contracts import Part
from tasks.publication.manifests import NightPlace
from tasks.publication.night import part_name, write_night
from tasks.publication.object_store import Store
from tasks.publication.withdrawal import Withdrawal, withdraw_night
from tasks.publish import publish
from tasks.quality.ledger import JudgedDay, Ledger
from tasks.rows.partitions import partition, write_table
from tasks.runtime.files import file_sha256, write_json
from tasks.runtime.paths import Paths

PATHS = Paths("tiny")
DAY = timedelta(days=1)


def product(url, **changes):  # noqa: F811
    return a_product(publish={"url": url}, **changes)


def published(described, as_of, table, model="m1", n_quarantined=0):
    """Publish a night of two parts that holds the rows of a table."""
    counts = {"rows_in": len(table) + n_quarantined, "rows_quarantined": n_quarantined}
    write_json(PATHS.report("validation.json"), {"scored_day": counts})
    parts = []
    for shard, rows in enumerate((table[::2], table[1::2])):
        file = PATHS.predictions / part_name(shard)
        write_table(file, rows)
        parts.append(Part(name=file.name, rows=len(rows), bytes=file.stat().st_size, sha256=file_sha256(file)))
    inputs = night_inputs(model, as_of, as_of + DAY)
    write_night(described, as_of, inputs, parts, PATHS.predictions)
    publish(described, as_of)


def labels_known(day, keys, values):
    """Valid labels that became known on a day; None withdraws one."""
    table = pd.DataFrame({"parcel_id": keys, "late": pd.array(values, dtype="Int8")})
    write_table(partition(PATHS.valid / "labels", day), table)


def scored(n=40, seed=0):
    probability = np.random.default_rng(seed).random(n).round(3)
    keys = [f"{seed}-{i}" for i in range(n)]
    return pd.DataFrame({"parcel_id": keys, "prediction": probability >= 0.5, "probability": probability})


def test_night_is_recorded_and_measured_when_its_labels_have_come(url, monkeypatch):  # noqa: F811
    described, table = product(url), scored()
    published(described, AS_OF, table)
    mean = table["probability"].mean()
    line = str(monitor(described, AS_OF))
    record = nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF]
    estimated = f"estimated auc {record.estimate:.4f} if its probabilities come true"
    assert line == f"40 predictions by a model by hand, mean score {mean:.4f}, {estimated}"
    assert record.predictions.deciles == pytest.approx(table["probability"].quantile(np.arange(0.1, 0.95, 0.1)))
    assert record.predictions.shares == pytest.approx(table["prediction"].astype(str).value_counts(True).to_dict())
    assert record.truth is None
    # The scored day is the 11th, and its labels are a day late: thirty of forty have come on the 12th.
    truth = np.random.default_rng(1).integers(0, 2, 40)
    labels_known(AS_OF + 2 * DAY, table["parcel_id"][:30], truth[:30])
    later = AS_OF + 2 * DAY
    published(described, later, scored(seed=2))
    auc = roc_auc_score(truth[:30], table["probability"][:30])
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", "scheduled__2")
    assert str(monitor(described, later)).endswith(f"; night of {AS_OF}: auc {auc:.4f} on 30 labelled rows")
    shown = read_status(Store(url), "tiny").nights
    assert [(each.as_of, each.published, each.airflow_run) for each in shown] == [
        (AS_OF, 40, None),
        (later, 40, "scheduled__2"),
    ]
    assert (shown[0].truth.value, shown[0].truth.labelled) == (pytest.approx(auc, abs=1e-6), 30)
    assert nights(Store(url), "tiny", AS_OF, later)[AS_OF].truth.value == pytest.approx(auc, abs=1e-6)


def test_later_labels_revise_what_was_measured_and_earlier_ones_do_not(url):  # noqa: F811
    described, table, truth = product(url), scored(), np.arange(40) % 2
    published(described, AS_OF, table)
    monitor(described, AS_OF)
    labels_known(AS_OF + 2 * DAY, table["parcel_id"], truth)
    labels_known(AS_OF + 5 * DAY, ["0-0", "0-1"], [1, None])  # one was wrong, one is withdrawn
    monitor(described, AS_OF + 5 * DAY)
    revised = np.where(np.arange(40) == 0, 1, truth)
    kept = np.arange(40) != 1
    wanted = roc_auc_score(revised[kept], table["probability"][kept])
    found = nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].truth
    assert (found.value, found.labelled) == (pytest.approx(wanted, abs=1e-6), 39)
    monitor(described, AS_OF + 3 * DAY)  # a backfill of an earlier date
    assert nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].truth == found


@pytest.mark.parametrize(("days", "measured"), [(0, 40), (1, 25), (2, None)])
def test_rows_whose_label_the_model_may_have_learnt_from_are_not_measured(url, days, measured):  # noqa: F811
    """As of a file without dates, whose rows are scored by the model that learnt from those with a label."""
    described, table, truth = product(url), scored(), np.arange(40) % 2
    published(described, AS_OF, table)
    monitor(described, AS_OF)
    labels_known(AS_OF + DAY, table["parcel_id"][:15], truth[:15])
    labels_known(AS_OF + 2 * DAY, table["parcel_id"], truth)
    past = Past.of(Store(url), "tiny", AS_OF, AS_OF)
    found = measure_past(described, AS_OF + 2 * DAY, past, PATHS, lambda record: record.as_of + days * DAY)
    assert [each.truth.labelled for each in found] == ([measured] if measured else [])


def test_night_before_others_that_were_stopped_is_measured_by_the_next_one(url):  # noqa: F811
    described = product(url, target__late_days=0)
    published(described, AS_OF, scored())
    monitor(described, AS_OF)
    labels_known(AS_OF + 2 * DAY, scored()["parcel_id"], np.arange(40) % 2)
    later = AS_OF + 7 * DAY
    published(described, later, scored(seed=2))
    monitor(described, later)
    assert nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].truth.labelled == 40


def test_night_that_another_replaced_is_recorded_anew(url):  # noqa: F811
    described = product(url)
    published(described, AS_OF, scored())
    monitor(described, AS_OF)
    labels_known(AS_OF + 2 * DAY, scored()["parcel_id"], np.arange(40) % 2)
    monitor(described, AS_OF + 2 * DAY)
    published(described, AS_OF, scored(seed=5), model="another")
    assert str(monitor(described, AS_OF)).startswith("40 predictions")
    record = nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF]
    assert record.predictions.mean == pytest.approx(scored(seed=5)["probability"].mean(), abs=1e-6)
    assert record.truth is None


def test_rules_that_rows_in_quarantine_broke_are_on_record_without_a_value(url):  # noqa: F811
    """By the ledger that validate keeps."""
    day = (AS_OF + DAY).isoformat()
    found = JudgedDay(
        input="x",
        rows_in=42,
        rows_fit=39,
        reasons={"a: missing": 1, "b: unknown": 2},
        examples={"a: missing": 7, "b: unknown": 0},
    )
    ledger = Ledger(judged_by="x")
    ledger.note("rows", day, found)
    ledger.save(PATHS.valid, PATHS.quarantine)
    published(product(url), AS_OF, scored(), n_quarantined=2)
    monitor(product(url), AS_OF)
    broken = {"b: unknown": BrokenRule(rows=2, first=1), "a: missing": BrokenRule(rows=1, first=8)}
    assert nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].broken == broken
    assert list(read_status(Store(url), "tiny").nights[-1].broken) == ["b: unknown", "a: missing"]
    published(product(url), AS_OF + DAY, scored(seed=1), n_quarantined=2)
    monitor(product(url), AS_OF + DAY)
    record = nights(Store(url), "tiny", AS_OF, AS_OF + DAY)[AS_OF + DAY]
    assert record.broken == {}, "a day that the ledger does not know"


def test_nights_are_compared_with_the_same_weekdays_before(url):  # noqa: F811
    described = product(url)
    for weeks in (2, 1):
        published(described, AS_OF - timedelta(weeks=weeks), scored(seed=1))
        monitor(described, AS_OF - timedelta(weeks=weeks))
    shifted = scored(seed=1).assign(probability=lambda table: table["probability"] / 2)
    published(described, AS_OF, shifted)
    monitor(described, AS_OF)
    change = [each.change for each in nights(Store(url), "tiny", AS_OF - timedelta(weeks=2), AS_OF).values()]
    usual, now = (table["probability"].quantile(np.arange(0.1, 0.95, 0.1)) for table in (scored(seed=1), shifted))
    assert change[:2] == [None, 0.0]
    assert change[2] == pytest.approx((now - usual).abs().mean() / (usual.iloc[-1] - usual.iloc[0]), abs=1e-3)


def test_withdrawn_night_and_one_that_is_not_there_have_no_record(url):  # noqa: F811
    described = product(url)
    assert str(monitor(described, AS_OF)) == "no night is published"
    published(described, AS_OF, scored())
    withdraw_night(NightPlace(store=Store(url), product="tiny", as_of=AS_OF), Withdrawal(person="Ann", reason="no"))
    assert str(monitor(described, AS_OF)) == "no night is published"
    assert not Store(url).list("tiny/_past/")


def test_empty_night_and_a_year_that_ends_are_recorded(url):  # noqa: F811
    described, last = product(url), date(2023, 12, 31)
    published(described, last, scored(n=0))
    assert str(monitor(described, last)) == "0 predictions by a model by hand, mean score none"
    published(described, last + DAY, scored())
    monitor(described, last + DAY)
    assert [each.published for each in nights(Store(url), "tiny", last, last + DAY).values()] == [0, 40]
    assert len(Store(url).list("tiny/_past/")) == 2


def test_night_of_classes_counts_one_that_the_model_does_not_know(url):  # noqa: F811
    described = product(url, target__task="multiclass", gates__metric="macro_f1")
    scores = np.random.default_rng(0).dirichlet((1, 1), 30)
    columns = head_of("multiclass").night_columns(scores, ("a", "b"), 0.5)
    table = pd.DataFrame({"parcel_id": [f"p{i}" for i in range(30)], **columns})
    published(described, AS_OF, table)
    monitor(described, AS_OF)
    truth = np.random.default_rng(1).choice(["a", "b", "c"], 30)
    known = pd.DataFrame({"parcel_id": table["parcel_id"], "late": pd.array(truth, dtype="str")})
    write_table(partition(PATHS.valid / "labels", AS_OF + 2 * DAY), known)
    monitor(described, AS_OF + 2 * DAY)
    found = nights(Store(url), "tiny", AS_OF, AS_OF)[AS_OF].truth
    wanted = f1_score(truth, table["prediction"], average="macro")
    assert (found.metric, found.value) == ("macro_f1", pytest.approx(wanted, abs=1e-6))


def test_night_is_looked_at_again_as_labels_may_have_come():
    described = a_product(target__late_days=30)  # the scored day's labels are due on the 12th
    record = NightRecord(
        as_of=AS_OF,
        scored_day=AS_OF + DAY,
        run="x",
        rows_in=1,
        quarantined=0,
        published=1,
        model_version=None,
        predictions=Predictions(mean=None, deciles=(), shares={}),
    )
    looked, measured = [], record
    for days in range(60):
        day = AS_OF + timedelta(days=days)
        if is_due(measured, described, day):
            looked.append(days)
            measured = measured.__class__.from_json(
                {**measured.to_json(), "truth": {"as_of": str(day), "labelled": 1, "metric": "auc", "value": None}}
            )
    assert looked == [2, 3, 5, 9, 16, 32]
