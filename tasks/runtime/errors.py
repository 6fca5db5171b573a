"""Tell the failures that a command knows by what mends them, and carry them in exit codes.

    Exception
    ├── UserError            65   a person mends it: data, declaration or set-up; never retried
    ├── TransientError       75   waiting mends it: the same call may succeed a little later
    │   ├── GitTimeout            git did not end
    │   └── StoreUnavailable      the object store did not answer, or answered with a failure of its own
    └── CommandFailed             a command of a run failed in a way of its own: a bug, which no retry mends

A UserError or TransientError prints as one message without a traceback, and so does a failure of the surroundings that
`tasks.runtime.surroundings` knows. Every other exception is a bug of the project and keeps its traceback.
"""

# sysexits.h of BSD: the conventional codes for these meanings.
EXIT_USER_ERROR = 65
EXIT_TRANSIENT = 75
# As a shell has it for a program that SIGINT ended.
EXIT_INTERRUPTED = 130


class UserError(Exception):
    """A mistake in the data, the declaration or the set-up: its text names rule, value, place and remedy.

    Raised where a person must act, such as for an unknown product: `products.flight-delay must be declared ...`.
    """


class TransientError(Exception):
    """A failure of the surroundings that the same call may survive a little later, such as a lock that is held."""


class GitTimeout(TransientError):
    """Git was killed at work because it did not end; the clone that it worked in may be half written."""


class StoreUnavailable(TransientError):
    """The object store did not answer a request, or answered with a failure of its own, however often it was sent."""


class CommandFailed(RuntimeError):
    """A command of a run ended neither well nor with an error that names its remedy; its output has the reason."""
