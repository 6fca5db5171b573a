"""Render what a run's validation.json says of its expectations as Great Expectations' own Data Docs, one page.

The page is for a person who knows these pages, on their own machine: it loads styles and scripts from hosts of others,
which the Products page and a training's report never do. No value of a row is in it, as none is in validation.json.
"""

from collections.abc import Mapping
from typing import Any

from tasks.quality.expectations import great_expectations


def data_docs(product: str, validation: Mapping[str, Any]) -> str:
    """Return the page of a product's validation.json, as HTML."""
    gx = great_expectations()
    from great_expectations.core import ExpectationSuiteValidationResult
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    results = [_result(each) for each in validation["expectations"]]
    n_successful = sum(each.success for each in results)
    suite = ExpectationSuiteValidationResult(
        suite_name=product,
        success=n_successful == len(results),
        results=results,
        statistics={
            "evaluated_expectations": len(results),
            "successful_expectations": n_successful,
            "unsuccessful_expectations": len(results) - n_successful,
            "success_percent": 100 * n_successful / len(results) if results else None,
        },
        meta={
            "great_expectations_version": gx.__version__,
            "run_id": {"run_name": f"{product} {validation['as_of']}", "run_time": validation["as_of"]},
            "batch_spec": {},
        },
    )
    return str(DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(suite)))


def _result(outcome: Mapping[str, Any]) -> Any:
    """Return an outcome as Great Expectations' own object."""
    from great_expectations.core import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    n_seen, n_bad = outcome["rows_seen"] or 0, outcome["rows_unexpected"] or 0
    counted = {
        "element_count": n_seen,
        "missing_count": outcome["rows_missing"],
        "missing_percent": 100 * outcome["rows_missing"] / n_seen if n_seen else 0.0,
        "unexpected_count": n_bad,
        "unexpected_percent": 100 * n_bad / n_seen if n_seen else 0.0,
        "partial_unexpected_list": [],
    }
    observed = {"observed_value": outcome.get("observed")}
    return ExpectationValidationResult(
        success=outcome["success"],
        expectation_config=ExpectationConfiguration(
            type=outcome["type"], kwargs=dict(outcome["kwargs"]), severity=outcome["severity"]
        ),
        result=counted if outcome["rows_seen"] is not None else observed,
        exception_info={
            "raised_exception": bool(outcome["error"]),
            "exception_message": outcome["error"],
            "exception_traceback": outcome["error"],
        },
    )
