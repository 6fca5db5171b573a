"""Oracle: the law that what is measured on was never read, and that peers get the same rows."""

import pandas as pd
import pytest

from benchmarks import pretraining as bench

TABLE = pd.DataFrame({"article_id": [str(i) for i in range(20_000)]})


@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: case.name)
def test_no_start_reads_a_test_row_and_few_rows_are_labelled(case):
    parts = {name: set(rows["article_id"]) for name, rows in bench.split(TABLE, case, 0).items()}
    assert not parts["test"] & parts["pretrain"]
    assert not parts["train"] & parts["val"]
    assert parts["train"] | parts["val"] <= parts["pretrain"]
    assert len(parts["train"] | parts["val"]) == case.n_labelled


def test_splits_of_two_seeds_differ_and_of_one_agree():
    case = bench.CASES[0]
    first, again, other = (bench.split(TABLE, case, seed)["test"]["article_id"].tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("case", bench.CASES, ids=lambda case: case.name)
def test_starts_of_a_set_differ_in_model_alone(case):
    products = [bench.declare(case, start) for start in case.starts]
    assert len({(tuple(each.columns.items()), each.target.name, each.model.companion) for each in products}) == 1
    assert len({each.model.init for each in products}) > 1
