"""Oracle: the sentences in which Great Expectations' own pages put what it finds."""

from html.parser import HTMLParser

import pandas as pd
from builders import a_product

from tasks.quality.expectations import evaluate_expectations
from tasks.reports.data_docs import data_docs

SECRET = 4711.5
DECLARED = [
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "weight_kg", "min_value": 0}},
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "depot", "mostly": 0.9}},
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 10}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "depot", "value_set": ["a", "b", "c"]}},
]


class Words(HTMLParser):
    """The text of a page, of which scripts and styles are none."""

    def __init__(self, page):
        super().__init__()
        self.words, self.apart = [], 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.apart += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.apart -= tag in ("script", "style")

    def handle_data(self, data):
        self.words += [] if self.apart else data.split()


def test_page_says_of_each_expectation_what_great_expectations_does_and_no_value():
    table = pd.DataFrame({"depot": ["a", None, "b", "c"], "weight_kg": [1.0, 2.0, -SECRET, 3.0], "dt": "2024-02-10"})
    product = a_product(expectations=[{**each, "severity": "info"} for each in DECLARED])
    found = evaluate_expectations(table, product.expectations)
    validation = {"as_of": "2024-02-10", "expectations": [each.outcome.to_json() for each in found]}
    page = data_docs("tiny", validation)
    text = " ".join(Words(page).words)
    assert "values must be greater than or equal to 0" in text
    assert "values must not be null, at least 90 % of the time" in text
    assert "1 unexpected values found. 25% of 4 total rows." in text
    assert "Must have greater than or equal to 10 rows." in text
    assert "Evaluated Expectations 4 Successful Expectations 1 Unsuccessful Expectations 3" in text
    assert str(SECRET) not in page
