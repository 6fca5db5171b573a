"""Tell which nights and retrains a product's schedules ask for, in the order in which they are due."""

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from tasks.commands.simulation.contracts import Step
from tasks.params import Product
from tasks.runtime.errors import UserError

EACH_NIGHT, EACH_WEEK = "0 2 * * *", "0 4 * * 0"
"""The schedules of a product that declares none."""


def steps_of(product: Product, first: date, last: date) -> tuple[Step, ...]:
    """Return the steps whose nights are from `first` to `last`, after the training of the model that scores the first.

    A run that is due on a day is of the day before, as those of Airflow are. Raises UserError where no night is due.
    """
    predict = product.schedule.predict or EACH_NIGHT
    retrain = product.schedule.retrain or EACH_WEEK
    nights = moments(predict, product, first, last)
    if not nights:
        raise UserError(
            f"products.{product.name}.schedule.predict ({predict}) must ask for a night from {first} to {last}, and "
            "asks for none; give FROM and TO further apart"
        )
    before = [each for each in moments(retrain, product, first - timedelta(days=400), last) if each < nights[0]]
    retrains = [*before[-1:], *(each for each in moments(retrain, product, first, last) if each >= nights[0])]
    if not before:
        raise UserError(
            f"products.{product.name}.schedule.retrain ({retrain}) must ask for a training in the year before {first}, "
            "from which the first champion comes, and asks for none; declare one that is due more often"
        )
    due = [(moment, "retrain") for moment in retrains] + [(moment, "night") for moment in nights]
    order = sorted(due, key=lambda each: (each[0], each[1]))
    return tuple(Step(kind=kind, as_of=as_of(moment)) for moment, kind in order)  # type: ignore[arg-type]


def as_of(moment: datetime) -> date:
    """Return the as_of of a run that is due at a moment of the product's own time zone."""
    return moment.date() - timedelta(days=1)


def moments(schedule: str, product: Product, first: date, last: date) -> list[datetime]:
    """Return when a cron expression is due whose runs are of the days from `first` to `last`, in the product's zone."""
    from croniter import croniter_range

    zone = ZoneInfo(product.time_zone)
    begin, end = (
        datetime.combine(day + timedelta(days=1), at, zone) for day, at in ((first, time.min), (last, time.max))
    )
    return list(croniter_range(begin, end, schedule))
