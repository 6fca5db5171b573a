"""Tell Airflow which failures no retry can mend."""

import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from airflow.sdk.exceptions import AirflowFailException

from dags.messages import UnknownFailure
from tasks.runtime.errors import TransientError, UserError
from tasks.runtime.log_lines import print_error
from tasks.runtime.surroundings import explained

T = TypeVar("T")


def classify_failure(work: Callable[[], T]) -> T:
    """Return the value of `work`; mark a failure that no retry can mend as final."""
    try:
        return work()
    except Exception as error:
        known = error if isinstance(error, UserError | TransientError) else explained(error)
        if isinstance(known, UserError):
            print_error(str(known), sys.stdout)
            raise AirflowFailException(str(known)) from None
        if isinstance(known, TransientError):
            print_error(f"this may pass; waiting before another try: {known}", sys.stdout)
            raise known from None
        print_error(traceback.format_exc(), sys.stdout)
        raise UnknownFailure(repr(error)) from None
