"""Tell how a training differs from the champion's: settings, data, and how the model did."""

import json
import re
from dataclasses import dataclass

from pydantic import JsonValue

from tasks import params
from tasks.params import Product, effective
from tasks.reports.contracts import Training
from tasks.runs.registry.tags import Champion
from tasks.runtime.errors import UserError
from tasks.runtime.git import git
from tasks.runtime.settings import settings

NOTHING = "–"
MAX_CHARACTERS = 160


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that differs."""

    name: str
    """A key of the product's entry, or what is compared."""
    before: str
    """As the champion has it."""
    now: str
    """As this training has it."""


def champion_settings(champion: Champion, product: str) -> Product | None:
    """Return the product as the champion's commit declares it; None where this version cannot read it."""
    git("fetch", "--quiet", "--no-tags", settings().origin, champion.commit)
    try:
        return params.loads(git("show", f"{champion.commit}:{params.PARAMS_FILE}")).product(product)
    except UserError:
        return None


def changes(
    champion: Champion, before: Product | None, trained: Training | None, product: Product, training: Training
) -> tuple[Change, ...]:
    """Return what differs from the champion: `before` is how it was declared, `trained` the record of its training."""
    found = [Change(name="as_of", before=champion.as_of or NOTHING, now=training.as_of.isoformat())]
    if trained:
        found += _of_trainings(trained, training)
    if before is None:
        return (*found, Change(name="settings", before="cannot be read by this version", now="as declared"))
    return (*found, *changed_settings(effective.effective(before), effective.effective(product)))


def _of_trainings(before: Training, now: Training) -> list[Change]:
    compared = [
        ("code and settings", *(each.revision[:12] for each in (before, now))),
        ("rows to learn from", *(f"{each.rows.get('train', 0):,}" for each in (before, now))),
        ("days to learn from", *(" to ".join(each.days.get("train", ())) for each in (before, now))),
        ("weights of the parts", *(weights(each) for each in (before, now))),
        (f"{now.metric}, each on its own held-out rows", *(_figure(each.value) for each in (before, now))),
    ]
    return [Change(name=name, before=old or NOTHING, now=new or NOTHING) for name, old, new in compared if old != new]


def weights(training: Training) -> str:
    """Return the weights of the parts of the blend."""
    return ", ".join(f"{name} {weight:.2f}" for name, weight in training.parts.items())


def _figure(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def changed_settings(before: effective.Settings, now: effective.Settings) -> list[Change]:
    """Return the settings that differ, by their place in the product's entry.

    >>> changed_settings({"model": {"preset": "small", "seed": 0}}, {"model": {"preset": "small", "seed": 1}})
    [Change(name='model.seed', before='0', now='1')]
    """
    old, new = dict(_flat(before)), dict(_flat(now))
    names = [*old, *(name for name in new if name not in old)]
    return [
        Change(name=name, before=_shown(old.get(name)), now=_shown(new.get(name)))
        for name in names
        if old.get(name) != new.get(name)
    ]


def _flat(settings: effective.Settings, place: str = "") -> list[tuple[str, JsonValue]]:
    found: list[tuple[str, JsonValue]] = []
    for name, value in settings.items():
        found += _flat(value, f"{place}{name}.") if isinstance(value, dict) else [(f"{place}{name}", value)]
    return found


def _shown(value: JsonValue) -> str:
    if value is None:
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = re.sub(r"//[^/@\s]+@", "//…@", text)  # an address may hold a password
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} …"
