"""Oracle: events counted by hand, and a network that must learn what only the order of events tells."""

import json
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from builders import a_product, declared
from conftest import ROOT
from sklearn.metrics import roc_auc_score

from model.evaluation.baseline import fit_baseline
from model.features.batches import collate
from model.features.encoded import on_disk
from model.features.fitted import Features
from model.features.histories import LEAK, NO_EVENTS, NOTHING, PER_BIN, EventForm, read, stored_events
from model.features.kinds.events import N_TIMES
from model.features.summaries import summaries
from model.network.network import Network
from model.network.store import save_model
from model.scoring.export import export_onnx, parity
from model.scoring.scorer import Scorer
from model.settings import NetworkSettings, PretrainingSettings, TrainingSettings
from model.target import Target
from model.training.fit import LabelledRows
from model.training.masking import hide
from model.training.train import pretrain, train
from tasks import params
from tasks.rows.casting import cast_column
from tasks.runtime.errors import UserError
from tasks.sources.fetch import fetch, fetch_whole
from tasks.sources.purchases import purchases

SMALL = NetworkSettings(d_model=16, n_layers=1, n_heads=2, d_feedforward=24, dropout=0.0, max_tokens=8)
FORM = EventForm(numbers=("amount",), categories=("shop",), max_events=5)
AT = datetime(2024, 3, 31)
KINDS = {"history": "events", "size": "number"}
LISTED = {"kind": "events", "fields": {"amount": "number", "shop": "category"}, "max_events": 5}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks so small are slower on several threads, which wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def event(days, amount=1.0, shop="north"):
    return {"time": (AT - timedelta(days=days)).date().isoformat(), "amount": amount, "shop": shop}


def a_table(n=380, seed=0):
    """Three to seven events a row; the label is the shop of the newest, which no count tells."""
    random = np.random.default_rng(seed)
    cells, y = [], []
    for _ in range(n):
        days = np.sort(random.choice(60, random.integers(3, 8), replace=False))[::-1]
        events = [event(int(day), float(random.normal()), str(random.choice(["north", "south"]))) for day in days]
        cells.append(stored_events(events, FORM, AT))
        y.append(int(events[-1]["shop"] == "south"))
    cells[3] = None
    return {"history": np.array(cells, object), "size": random.normal(size=n)}, np.array(y)


def fitted(table=None, y=None):
    table = a_table()[0] if table is None else table
    return Features.fit({name: KINDS[name] for name in table}, table, y, "binary", max_tokens=8)


def test_list_is_stored_alike_as_python_json_and_arrow_newest_last():
    events = [event(1, 2.5), event(9, 3, "south"), event(4, None, None)]
    stored = stored_events(events, FORM, AT)
    times = [each["time"] for each in json.loads(stored)["events"]]
    assert times == sorted(times)
    as_times = [{**each, "time": pd.Timestamp(each["time"])} for each in events]
    for cell in (json.dumps(events), tuple(events), np.array(as_times, object)):
        assert stored_events(cell, FORM, AT) == stored
    (found,) = read(np.array([stored], object))
    assert found.days_ago.tolist() == [9, 4, 1]
    assert found.gap_days[1:].tolist() == [5, 3]
    np.testing.assert_array_equal(found.numbers("amount"), [3, np.nan, 2.5])
    assert found.words("shop").tolist() == ["south", None, "north"]


def test_moment_is_stored_as_the_clocks_of_the_zone_show_it():
    form = EventForm(zone="America/New_York")
    stored = stored_events([{"time": "2024-03-31T02:30:00Z"}], form, AT)
    assert json.loads(stored)["events"] == [{"time": "2024-03-30T22:30:00"}]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("no json", "neither a list nor one as JSON"),
        (17, "neither a list nor one as JSON"),
        ("{}", "neither a list nor one as JSON"),
        ("[" * 100_000, "neither a list nor one as JSON"),
        ([1], "an event is no object"),
        ([{"amount": 1}], "an event has no time"),
        ([{"time": "soon", "amount": 1}], "an event has no time"),
        ([{"time": 20240101}], "an event has no time"),
        ([event(1, "much")], "amount of an event is no number"),
        ([event(1, True)], "amount of an event is no number"),
        ([event(1, "1e999")], "amount of an event is no finite number"),
        ([event(1, 1, {"a": 1})], "shop of an event is no single value"),
        ([event(1, 1, "x" * 2000)], "shop of an event has more than 1,000 characters"),
        ([event(0)] * 100_001, "more than 100,000 events"),
        ([event(5), event(-1)], LEAK),
    ],
)
def test_cell_that_holds_no_events_is_stored_as_its_reason_and_misfits(cell, reason):
    stored = stored_events(cell, FORM, AT)
    assert stored == NO_EVENTS + reason
    cast, misfits = cast_column(pd.Series([stored, None, stored_events([], FORM, AT)]), "events")
    assert misfits.tolist() == [True, False, False]
    assert cast.isna().tolist() == [True, True, False]


@pytest.mark.parametrize(
    "cell", ["[]", '{"at":"2024-01-01"}', '{"at":1,"events":[]}', "NaN", '{"at":"2024-01-01","events":[{}]}']
)
def test_cell_that_a_person_wrote_otherwise_than_stored_misfits(cell):
    assert cast_column(pd.Series([cell]), "events")[1].tolist() == [True]


def test_event_on_the_rows_own_day_is_a_leak_where_rows_are_known_before():
    on_the_day = [event(0)]
    assert not stored_events(on_the_day, FORM, AT).startswith(NO_EVENTS)
    assert stored_events(on_the_day, EventForm(days_before=1), AT) == NO_EVENTS + LEAK


def test_newest_events_are_kept_and_encoded_by_place_bin_and_slot():
    cells = np.array([stored_events([event(day, day) for day in range(9)], FORM, AT), None], object)
    features = fitted({"history": cells})
    encoded = features.encode({"history": cells})
    assert encoded["event_offsets"].tolist() == [0, 5, 5]
    events = encoded["events"]
    assert events[:, 0].tolist() == [4, 3, 2, 1, 0]
    assert (np.diff(events[:, 1]) < 0).all()
    assert events[:, 2].tolist()[0] == NOTHING
    assert events[-1, 1] == 0
    assert events[0, 1] == PER_BIN * (len(features.fitted["events"].columns["history"].days_ago) - 1)
    batch = collate(encoded, np.array([1, 0]), 0)
    assert (batch["events"][0] == NOTHING).all()
    assert encoded.lengths.tolist() == [6, 1]


def test_summaries_are_what_a_person_counts():
    cells = [stored_events([event(40, 2), event(10, 5), event(4, -1)], FORM, AT), None]
    (part,) = read(np.array(cells, object))
    found = summaries(part, ("amount",), ("shop",)).astype(float)
    counts = np.expm1(found[0, :14])
    expected = [3, 4, 40, 2, 18, 12, 30, 6, 4 / 18, 1, 2, 3, 3, 3]
    np.testing.assert_allclose(counts, expected, rtol=1e-5)
    amounts = np.sign(found[0, 14:19]) * np.expm1(np.abs(found[0, 14:19]))
    np.testing.assert_allclose(amounts, [6, 2, 5, -1, 6], rtol=1e-5)
    assert np.expm1(found[0, 19]) == pytest.approx(1)
    assert found[1, 0] == 0
    assert np.isnan(found[1, 1:3]).all()


def test_pieces_on_disk_and_taken_rows_are_the_rows_encoded_at_once(tmp_path):
    table, _ = a_table(40)
    features = fitted(table)
    whole = features.encode(table)
    pieces = [
        features.encode({name: column[at] for name, column in table.items()}) for at in (slice(15), slice(15, 40))
    ]
    stored = on_disk(pieces, tmp_path)
    for name in whole.arrays:
        np.testing.assert_array_equal(stored[name], whole[name])
    rows = np.array([7, 3, 30])
    for found in (whole.take(rows), features.encode({name: column[rows] for name, column in table.items()})):
        for name in ("events", "event_offsets", "event_summaries"):
            np.testing.assert_array_equal(whole.take(rows)[name], found[name])


def test_features_with_two_columns_of_events_are_read_back(tmp_path):
    table, _ = a_table(40)
    random = np.random.default_rng(1)
    visits = [stored_events([event(int(day)) for day in random.integers(0, 9, 3)], EventForm(), AT) for _ in range(40)]
    table = {"history": table["history"], "visits": np.array(visits, object)}
    features = Features.fit(dict.fromkeys(table, "events"), table, None, "binary", max_tokens=8)
    features.save(tmp_path)
    assert Features.load(tmp_path) == features
    encoded = features.encode(table)
    first, second = features.sizes.of("events")
    assert encoded["events"].shape[1] == 1 + len(first.n_bins) + len(second.n_bins) + 1
    of_visits = encoded["events"][:, 0] >= first.max_events
    assert (encoded["events"][of_visits][:, 1 : 1 + len(first.n_bins)] == NOTHING).all()
    assert (encoded["events"][~of_visits][:, 1 + len(first.n_bins) : -1] == NOTHING).all()
    network = Network(SMALL, features.sizes, Target(task="binary", classes=("0", "1")), seed=0).eval()
    assert torch.isfinite(network(network.batch_of(encoded, np.arange(40)))).all()


def test_pretraining_hides_events_and_learns_to_guess_them():
    table, _ = a_table(60)
    table = {"history": table["history"]}
    features = fitted(table)
    encoded = features.encode(table)
    settings = PretrainingSettings(epochs=0.5, learning_rate=0.02, batch_tokens=400)
    network, history = pretrain(features, encoded, SMALL, settings)
    assert history[-1]["train_loss"] < 0.9
    batch = network.batch_of(encoded, np.arange(60))
    torch.manual_seed(0)
    hidden = hide(batch, network, 0.5)
    chosen, seen = hidden.tokens["events"], hidden.seen["events"]
    assert not chosen[batch["events"][..., 0] < 0].any()
    assert 0.4 < chosen[batch["events"][..., 0] >= 0].float().mean() < 0.6
    assert (seen[chosen][:, 1:] == NOTHING).all()
    assert torch.equal(seen[..., 0], batch["events"][..., 0])
    follows = torch.nn.functional.pad(chosen[:, :-1], (1, 0)) & ~chosen
    assert (seen[follows][:, N_TIMES] == NOTHING).all()
    assert torch.equal(seen[follows][:, 1], batch["events"][follows][:, 1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory, one_thread):
    """A folder with a trained network and its export, and the table; the last 80 rows are held out."""
    folder, (table, y) = tmp_path_factory.mktemp("events"), a_table()
    features = fitted(table, y)
    network = Network(SMALL, features.sizes, Target(task="binary", classes=("0", "1")), seed=1)
    rows, unseen = (
        LabelledRows(features.encode({name: column[at] for name, column in table.items()}), y[at])
        for at in (slice(240), slice(240, 300))
    )
    settings = TrainingSettings(epochs=8, learning_rate=0.02, batch_tokens=400)
    network = train(network, features, rows, unseen, settings)[0]
    save_model(folder / "trained", network, features)
    export_onnx(folder / "trained", folder / "onnx")
    return folder, table, y


@pytest.mark.long
def test_network_learns_what_only_the_newest_event_tells(trained):
    folder, table, y = trained
    held_out = {name: column[300:] for name, column in table.items()}
    assert roc_auc_score(y[300:], Scorer(folder / "onnx").score(held_out)) > 0.95


@pytest.mark.long
def test_export_scores_events_as_torch_does_rows_without_any_too(trained):
    folder, table, _ = trained
    assert parity(folder / "trained", folder / "onnx", [table]) < 1e-4
    nothing = {"history": np.full(3, None, object), "size": np.full(3, np.nan)}
    assert np.isfinite(Scorer(folder / "onnx").score(nothing)).all()


def test_score_of_a_row_does_not_depend_on_its_batch(trained):
    folder, table, _ = trained
    scorer = Scorer(folder / "onnx")
    alone = [scorer.score({name: column[at : at + 1] for name, column in table.items()}) for at in range(8)]
    np.testing.assert_allclose(scorer.score(table)[:8], np.concatenate(alone), atol=1e-6)


def test_baseline_reads_counts_and_sums_also_of_rows_without_events():
    table, _ = a_table(200)
    (part,) = read(table["history"])
    y = (summaries(part, ("amount",), ())[:, 14] > 0).astype(int)
    baseline = fit_baseline({"history": "events"}, {"history": table["history"][:120]}, y[:120], "binary", 2, seed=0)
    assert roc_auc_score(y[120:], baseline.score({"history": table["history"][120:]})) > 0.95
    assert np.isfinite(baseline.score({"history": np.full(2, None, object)})).all()


ROWS = pd.DataFrame(
    {"parcel_id": ["a", "b", "c"], "day": ["2024-01-10", "2024-01-20", "2024-01-20"], "late": [0, 1, 0]}
)


def listed_product(kind, **entry):
    columns = {"history": {**LISTED, **entry}}
    return a_product(source={"kind": kind, "url": f"rows.{kind}"}, columns=columns, expectations=[])


def test_files_deliver_the_same_list_as_struct_as_json_lines_and_as_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lists = [[{"time": "2024-01-05", "amount": 2.0, "shop": "north", "unread": 1}], [], None]
    ROWS.assign(history=lists).to_parquet("rows.parquet")
    ROWS.assign(history=lists).to_json("rows.jsonl", orient="records", lines=True)
    texts = [None if each is None else json.dumps(each) for each in lists]
    ROWS.assign(history=texts).to_csv("rows.csv", index=False)
    found = [
        fetch_whole(listed_product(kind), None, date(2024, 1, 30))["history"] for kind in ("parquet", "jsonl", "csv")
    ]
    assert found[0][0] == '{"at":"2024-01-10","events":[{"time":"2024-01-05","amount":2.0,"shop":"north"}]}'
    for cells in found:
        assert cells.tolist()[:2] == found[0].tolist()[:2]
        assert cells.isna().tolist() == [False, False, True]


def joined_product(**entry):
    listed = {"from": "visits", "by": "customer", "time": "visited", **LISTED, **entry}
    return a_product(
        source={"kind": "csv", "url": "rows.csv"},
        sources={"visits": {"kind": "csv", "url": "visits.csv", "names": {"amount": "EUR"}, "decimal": ","}},
        columns={"customer": "category", "history": listed},
        expectations=[],
    )


def write_joined(folder):
    rows = {"parcel_id": range(4), "day": ["2024-01-10", "2024-01-11", "2024-01-11", "2024-01-11"], "late": 0}
    pd.DataFrame(rows).assign(customer=["7", "7", "8", "9"]).to_csv(folder / "rows.csv", index=False)
    visits = {"customer": [7, 7, 8, 7], "visited": ["2024-01-10", "2024-01-09", "2024-01-10T10:00", "2024-01-12"]}
    pd.DataFrame(visits).assign(EUR=["1,5", "2", "", "9"], shop="north").to_csv(folder / "visits.csv", index=False)


def test_row_gets_the_events_of_another_source_that_were_known_on_its_day(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_joined(tmp_path)
    (piece,) = fetch(joined_product(), None, date(2024, 1, 20))
    found = [
        [(each["time"], each.get("amount")) for each in json.loads(cell)["events"]] for cell in piece.rows["history"]
    ]
    # Rows are known a day before: predict.horizon_days is 1.
    assert found == [[("2024-01-09", 2)], [("2024-01-09", 2), ("2024-01-10", 1.5)], [("2024-01-10T10:00:00", None)], []]


def test_pieces_are_read_anew_when_events_beside_them_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_joined(tmp_path)
    product, days = joined_product(), (None, date(2024, 1, 20))
    known = {piece.name: piece.digest for piece in fetch(product, *days)}
    assert [piece.rows for piece in fetch(product, *days, lambda name, digest: known[name] == digest)] == [None]
    with open("visits.csv", "a") as file:
        file.write("7,2024-01-08,4,north\n")
    (piece,) = fetch(product, *days, lambda name, digest: known[name] == digest)
    assert len(json.loads(piece.rows["history"][0])["events"]) == 2


def test_events_of_no_row_and_without_their_columns_stop_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_joined(tmp_path)
    visits = pd.read_csv("visits.csv")
    visits.assign(customer="k7").to_csv("visits.csv", index=False)
    with pytest.raises(UserError, match=r"sources\.visits: events must have the customer of rows, and none of 4"):
        list(fetch(joined_product(), None, date(2024, 1, 20)))
    visits.drop(columns="visited").to_csv("visits.csv", index=False)
    with pytest.raises(UserError, match="lacks visited"):
        list(fetch(joined_product(), None, date(2024, 1, 20)))


def test_customers_of_a_month_end_have_their_past_and_a_label():
    product = params.load(ROOT / "params.yaml").product("customer-value")
    month_end = date(1998, 2, 28)
    rows = fetch_whole(product, month_end, date(1998, 3, 31)).set_index("customer")
    assert rows["day"].value_counts().to_dict() == {"1998-02-28": 23_570, "1998-03-31": 23_570}
    assert rows.loc[rows["day"] == "1998-03-31", "buys"].isna().all()
    rows = rows[rows["day"] == "1998-02-28"]
    bought = purchases(None, date(1998, 3, 31))
    for customer, cell in rows["history"].iloc[::4000].items():
        own = bought[bought["customer"] == customer]
        past = own[own["day"] <= "1998-02-28"].sort_values("day", kind="stable").tail(48)
        found = [(each["time"], each["dollars"], each["discs"]) for each in json.loads(cell)["events"]]
        assert found == list(past[["day", "dollars", "discs"]].itertuples(index=False, name=None))
        assert rows.loc[customer, "buys"] == ((own["day"] > "1998-02-28") & (own["day"] <= "1998-03-30")).any()


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"columns": {"h": {"kind": "events", "by": "parcel_id"}}}, r"events\.h\.source must be given with by"),
        (
            {"columns": {"h": {"kind": "events", "by": "who", "from": "x"}}},
            r"events\.h\.by must be a column of the rows",
        ),
        ({"columns": {"h": {"kind": "events", "by": "day", "from": "x"}}}, r"declare it under sources"),
        ({"columns": {"h": {"kind": "events", "fields": {"time": "number"}}}}, "must not name the time"),
        ({"columns": {"h": {"kind": "events", "fields": {"a": "text"}}}}, "must be one of category, number"),
        ({"columns": {"h": "events"}, "time": None}, "time must be given where a column is of kind events"),
        ({"sources": {"x": {"kind": "csv", "url": "x.csv"}}}, r"sources\.x must be read by a column"),
    ],
)
def test_declaration_that_makes_no_events_is_refused(changes, mistake):
    with pytest.raises(UserError, match=mistake):
        params.parse(declared(expectations=[], **changes))
