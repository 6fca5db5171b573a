"""Make of a product's status, and of what Airflow says, what the page shows: a state, a sentence, and the details."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from dags.plugins.page.airflow_runs import Seen, SeenDag
from dags.plugins.page.charts import Chart, bar_chart, line_chart
from dags.plugins.page.freshness import NO_NIGHT, State, state_of
from dags.plugins.page.words import count, moment, number, signed
from tasks import params
from tasks.monitoring.contracts import Lead, NightRecord
from tasks.monitoring.status import LostMessage, ShownTraining, ShownVersion, Status

MAX_SLICES = 12
"""Of more slices those with the most labelled rows in the last measured night are drawn."""
URGENCY = {"bad": 0, "warn": 1}
"""In which order the tones come; the others after them."""
LOST_SHOWN = timedelta(days=1)
"""For so long a message is shown that may not have arrived."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What the page shows of a product."""

    name: str
    """The product's name."""
    question: str
    """What it answers, in the words of params.yaml."""
    task: str
    """The kind of target and its column."""
    metric: str
    """The metric of its gates."""
    state: State
    """How it stands, in a word and a sentence."""
    damage: str | None
    """Why its status cannot be shown; None where it can."""
    night: NightRecord | None
    """The last one."""
    measured: NightRecord | None
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
    lost: tuple[LostMessage, ...]
    """Messages of the last day that may not have arrived."""
    dags: Mapping[str, SeenDag]
    """How its DAGs stand, by kind."""
    charts: tuple[Chart, ...]
    """Of the last quarter's nights."""
    slices: tuple[Chart, ...]
    """The metric of the nights by declared slice."""
    beside: tuple[Chart, ...]
    """How the models that score beside the champion stood to it, night by night."""
    nights: tuple[NightRecord, ...]
    """Newest first."""
    trainings: tuple[ShownTraining, ...]
    """Newest first."""
    versions: tuple[ShownVersion, ...]
    """Newest first."""

    @property
    def is_untouched(self) -> bool:
        """Return whether there is nothing to show yet: no night, no training, and nothing at work or wrong."""
        return self.state.word == NO_NIGHT and not (self.trainings or self.waiting or self.lost or self.held)

    @property
    def next_steps(self) -> list[tuple[str, str]]:
        """Return kind and time of the next run of each DAG that has a schedule; of a paused one that it is paused."""
        return [
            (kind, "paused" if dag.is_paused else moment(dag.next_run))
            for kind, dag in self.dags.items()
            if dag.is_paused or dag.next_run
        ]

    @property
    def passed(self) -> str:
        """Return how many gates the last training has passed, and which it has not; empty where none was looked at."""
        gates = self.training.verdict.gates if self.training else ()
        missed = list(dict.fromkeys(gate.name for gate in gates if not gate.passed))
        line = f"{sum(gate.passed for gate in gates)} of {len(gates)} gates passed"
        return "" if not gates else f"{line}; not {', '.join(missed)}" if missed else line

    @property
    def asleep(self) -> str | None:
        """Return the run of train__<product> that waits for its DAG to be unpaused; None where none does."""
        train = self.dags.get("train")
        last = train.last if train and train.is_paused else None
        return last.name if last and last.state == "queued" else None

    @property
    def compared(self) -> list[tuple[str, str, Lead]]:
        """Return name, roles and lead of the models that scored beside the champion in the last night."""
        last = self.night
        roles = {each.name: ", ".join(each.roles) for each in last.shadows} if last else {}
        return [(name, roles.get(name, ""), lead) for name, lead in last.leads.items()] if last else []

    def outcome(self, training: ShownTraining) -> tuple[str, str]:
        """Return the tone and the words for what came of a training."""
        decision = training.verdict.decision
        if decision == "needs approval":
            if training.airflow_run in self.waiting:
                return ("warn", "waits for approval")
            last = self.dags["train"].last if "train" in self.dags else None
            is_at_work = last and last.name == training.airflow_run and last.state == "running"
            return ("idle", "answered, at work" if is_at_work else "not approved")
        return {
            "promoted": ("good", "promoted"),
            "champion already": ("good", "champion already"),
            "rejected": ("idle", "not promoted"),
            "held": ("warn", "held back by a person"),
            "withdrawn": ("idle", "kept out by a person"),
        }.get(decision, ("idle", decision))


def make_cards(
    products: list[params.Product], statuses: Mapping[str, Status | str | None], seen: Mapping[str, Seen], now: datetime
) -> list[Card]:
    """Return a card for each product; one that cannot be read says so, and the others stand.

    Those that something is wrong with come first, those of which there is nothing to show yet last.
    """
    cards = [_card(product, statuses[product.name], seen[product.name], now) for product in products]
    return sorted(cards, key=lambda card: (card.is_untouched, URGENCY.get(card.state.tone, 2)))


def _card(product: params.Product, found: Status | str | None, seen: Seen, now: datetime) -> Card:
    damage = found if isinstance(found, str) else None
    status = found if isinstance(found, Status) else Status(product=product.name)
    stand = [each for each in status.nights if not each.withdrawn]
    measured = next((each for each in reversed(stand) if each.truth and each.truth.value is not None), None)
    training = status.trainings[-1] if status.trainings else None
    champion = status.champion
    made = (each for each in reversed(status.trainings) if champion and each.run == champion.experiment)
    of_champion = next(made, None)
    night = status.nights[-1] if status.nights else None
    return Card(
        name=product.name,
        question=product.description,
        task=f"{product.target.task} · {product.target.name}",
        metric=product.gates.metric,
        state=state_of(product, night, seen.dags, now, damage=damage),
        damage=damage,
        night=night,
        measured=measured,
        champion=champion,
        training=training,
        of_champion=of_champion,
        held=status.held,
        waiting=seen.dags["train"].waiting if "train" in seen.dags else (),
        lost=tuple(each for each in status.lost if each.tried > now - LOST_SHOWN),
        dags=seen.dags,
        charts=_charts(product, status.nights, of_champion),
        slices=_of_slices(product, stand, measured),
        beside=_beside(product, stand),
        nights=tuple(reversed(status.nights)),
        trainings=tuple(reversed(status.trainings)),
        versions=tuple(reversed(status.versions)),
    )


def _charts(
    product: params.Product, nights: tuple[NightRecord, ...], of_champion: ShownTraining | None
) -> tuple[Chart, ...]:
    """Return the charts of the nights' metric, rows and change that there is enough of."""
    metric = product.gates.metric
    compared = of_champion and of_champion.metric == metric and of_champion.value
    withdrawn = [each.as_of for each in nights if each.withdrawn]
    quality = line_chart(
        f"{metric} by night",
        [
            (each.as_of, truth.value, f"{_title(each)}: {metric} {number(truth.value)} on {count(truth.labelled)} rows")
            if (truth := each.truth)
            else (each.as_of, None, "")
            for each in nights
        ],
        level=compared or None,
        level_text="champion on held-out rows",
        apart=withdrawn,
    )
    rows = bar_chart(
        "rows by night",
        [
            (
                each.as_of,
                each.published,
                each.quarantined,
                f"{_title(each)}: {count(each.published)} predicted, {count(each.quarantined)} in quarantine",
            )
            for each in nights
        ],
        apart=withdrawn,
    )
    change = line_chart(
        "change of scores from the same weekdays before",
        [(each.as_of, each.change, f"{_title(each)}: {number(each.change)} of the scores' range") for each in nights],
        floor=0.0,
        apart=withdrawn,
    )
    return tuple(each for each in (quality, rows, change) if each)


def _title(night: NightRecord) -> str:
    return f"{night.as_of}, withdrawn" if night.withdrawn else night.as_of.isoformat()


def _of_slices(
    product: params.Product, nights: Sequence[NightRecord], measured: NightRecord | None
) -> tuple[Chart, ...]:
    """Return a chart for each declared slice that there is enough of; the level is that of all rows of a night."""
    truth = measured.truth if measured else None
    if truth is None:
        return ()
    largest = sorted(truth.slices.items(), key=lambda entry: (-entry[1].labelled, entry[0]))[:MAX_SLICES]
    charts = []
    for name in sorted(name for name, _ in largest):
        values = [
            (each.as_of, found.value, f"{each.as_of}: {number(found.value)} on {count(found.labelled)} rows")
            for each in nights
            if each.truth and (found := each.truth.slices.get(name))
        ]
        title = f"{product.gates.metric}, {name}"
        charts.append(line_chart(title, values, level=truth.value, level_text="all rows, last measured"))
    return tuple(each for each in charts if each)


def _beside(product: params.Product, nights: Sequence[NightRecord]) -> tuple[Chart, ...]:
    """Return a chart for each model that the last night compares with the champion: its metric less the champion's."""
    names = nights[-1].leads if nights else ()
    charts = []
    for name in names:
        values = []
        for each in nights:
            own, other = (each.truth.value, each.truth.shadows.get(name)) if each.truth else (None, None)
            apart = None if own is None or other is None else other - own
            text = f"{each.as_of}: {signed(apart)} beside {each.model_version or 'a model by hand'}"
            values.append((each.as_of, apart, text))
        title = f"{product.gates.metric} of {name} less the champion's"
        charts.append(line_chart(title, values, level=0.0, level_text="the champion"))
    return tuple(each for each in charts if each)
