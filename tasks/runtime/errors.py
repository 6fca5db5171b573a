"""The two kinds of failure that a stage tells apart, and the exit codes that carry them to Airflow.

A `UserError` is mended by a person: it prints as one message without a traceback and is never retried.
A `PassingError` is mended by waiting: a store that does not answer, a lock that is held. Everything else is
a bug of ours, and keeps its traceback.
"""

# sysexits.h of BSD: the conventional codes for these meanings.
EXIT_USER_ERROR = 65
EXIT_TRANSIENT = 75


class UserError(Exception):
    """A mistake in the data, the declaration or the set-up: its text names rule, value, place and remedy."""


class TransientError(Exception):
    """A failure of the surroundings that the same call may survive a little later."""
