"""Make of a product's status, and of what Airflow says, what the page shows: a state, a sentence, and the details."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from dags.plugins.page.airflow_runs import Seen, SeenDag
from dags.plugins.page.charts import Chart, bar_chart, line_chart
from dags.plugins.page.freshness import State, state_of
from dags.plugins.page.words import count, number
from tasks import params
from tasks.monitoring.status import ShownNight, ShownTraining, ShownVersion, Status


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the page shows of a product."""

    name: str
    """The product's name."""
    task: str
    """What it predicts, in the words of params.yaml."""
    state: State
    """How it stands, in a word and a sentence."""
    damage: str | None
    """Why its status cannot be shown; None where it can."""
    night: ShownNight | None
    """The last one."""
    measured: ShownNight | None
    """The last one whose labels have come."""
    champion: ShownVersion | None
    """The model that predicts now."""
    training: ShownTraining | None
    """The last one."""
    of_champion: ShownTraining | None
    """The training that made the champion."""
    held: str
    """Who holds the champion; empty where nobody does."""
    waiting: tuple[str, ...]
    """Runs of train__<product> that wait for a person."""
    dags: Mapping[str, SeenDag]
    """How its DAGs stand, by kind."""
    charts: tuple[Chart, ...]
    """Of the last quarter's nights."""
    nights: tuple[ShownNight, ...]
    """Newest first."""
    trainings: tuple[ShownTraining, ...]
    """Newest first."""
    versions: tuple[ShownVersion, ...]
    """Newest first."""

    def outcome(self, training: ShownTraining) -> tuple[str, str]:
        """Return the tone and the words for what came of a training."""
        if training.decision == "needs approval":
            is_asked = training.airflow_run in self.waiting
            return ("warn", "waits for approval") if is_asked else ("idle", "not approved")
        return {
            "promoted": ("good", "promoted"),
            "champion already": ("good", "champion already"),
            "rejected": ("idle", "not promoted"),
            "held": ("warn", "held back by a person"),
            "withdrawn": ("idle", "kept out by a person"),
        }.get(training.decision, ("idle", training.decision))


def make_cards(
    products: list[params.Product], statuses: Mapping[str, Status | str | None], seen: Mapping[str, Seen], now: datetime
) -> list[Card]:
    """Return a card for each product; one that cannot be read says so, and the others stand."""
    return [_card(product, statuses[product.name], seen[product.name], now) for product in products]


def _card(product: params.Product, found: Status | str | None, seen: Seen, now: datetime) -> Card:
    damage = found if isinstance(found, str) else None
    status = found if isinstance(found, Status) else Status(product=product.name)
    measured = next((each for each in reversed(status.nights) if each.value is not None), None)
    training = status.trainings[-1] if status.trainings else None
    champion = status.champion
    made = (each for each in reversed(status.trainings) if champion and each.name == champion.experiment)
    of_champion = next(made, None)
    night = status.nights[-1] if status.nights else None
    return Card(
        name=product.name,
        task=f"{product.target.task} · {product.target.name}",
        state=state_of(product, night, seen.dags, now, damage=damage),
        damage=damage,
        night=night,
        measured=measured,
        champion=champion,
        training=training,
        of_champion=of_champion,
        held=status.held,
        waiting=seen.dags["train"].waiting if "train" in seen.dags else (),
        dags=seen.dags,
        charts=_charts(product, status.nights, of_champion),
        nights=tuple(reversed(status.nights)),
        trainings=tuple(reversed(status.trainings)),
        versions=tuple(reversed(status.versions)),
    )


def _charts(
    product: params.Product, nights: tuple[ShownNight, ...], of_champion: ShownTraining | None
) -> tuple[Chart, ...]:
    """Return the charts of the nights' metric, rows and change that there is enough of."""
    metric = product.gates.metric
    compared = of_champion and of_champion.metric == metric and of_champion.value
    quality = line_chart(
        f"{metric} by night",
        [
            (each.as_of, each.value, f"{each.as_of}: {metric} {number(each.value)} on {count(each.labelled)} rows")
            for each in nights
        ],
        level=compared or None,
        level_text="champion on held-out rows",
    )
    rows = bar_chart(
        "rows by night",
        [
            (
                each.as_of,
                each.published,
                each.quarantined,
                f"{each.as_of}: {count(each.published)} predicted, {count(each.quarantined)} in quarantine",
            )
            for each in nights
        ],
    )
    change = line_chart(
        "change of scores from the same weekdays before",
        [(each.as_of, each.change, f"{each.as_of}: {number(each.change)} of the scores' range") for each in nights],
        floor=0.0,
    )
    return tuple(each for each in (quality, rows, change) if each)
