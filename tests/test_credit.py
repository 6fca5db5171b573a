"""Oracle: the description of the German credit data at its source, and the file itself."""

from datetime import date, timedelta

from conftest import ROOT

from tasks import params
from tasks.sources import credit

DECLARED = params.load(ROOT / "params.yaml")
PRODUCT = DECLARED.product("credit-risk")


def test_all_credits_are_delivered_once_with_as_many_bad_ones_as_are_told():
    every = credit.rows(None, date(2014, 1, 1))
    assert len(every) == every["credit_id"].nunique() == 1000
    assert every["bad"].sum() == 300  # as the Statlog page says
    assert every["sex"].value_counts().to_dict() == {"male": 690, "female": 310}
    assert set(every.groupby("applied").size()) == {credit.CREDITS_PER_DAY}


def test_credits_of_a_day_are_the_same_however_many_are_asked_for():
    every, day = credit.rows(None, DECLARED.as_of), credit.FIRST_DAY + timedelta(days=17)
    alone = credit.rows(day, day)
    assert alone.equals(every[every["applied"] == day.isoformat()].reset_index(drop=True))


def test_what_the_law_forbids_is_measured_and_never_shown_to_the_model():
    every = credit.rows(None, DECLARED.as_of)
    assert set(PRODUCT.columns) <= set(every)
    assert {"sex", "age"} <= set(every) - set(PRODUCT.columns)
    assert {"sex", "age"} <= set(PRODUCT.stored_columns)
    assert PRODUCT.gates.slices.max_gap is not None
