"""Find the held-out rows that a champion has not learnt from: on others its metric would flatter it.

Held-out rows are the challenger's. The champion was parted from other data, or by another rule: a split by time whose
days have moved, another share, another group. What it learnt from, the params.yaml and the split.json of its own commit
say. A row that is dated after its as_of it cannot have seen.
"""

import tempfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from tasks import params
from tasks.params import Product
from tasks.rows.keys import digests, key_text
from tasks.rows.labels.labelled import group_codes
from tasks.rows.partitions import read_table
from tasks.rows.splitting import GROUPS, TEST, split_by_hash
from tasks.runs import remote
from tasks.runs.registry.tags import Champion
from tasks.runtime.errors import UserError
from tasks.runtime.files import read_json
from tasks.runtime.git import git
from tasks.runtime.paths import Paths
from tasks.runtime.settings import settings


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What a champion learnt from, in training and validation."""

    as_of: date
    """The date up to which it knew data."""
    product: Product
    """The product as it was declared then."""
    first: date
    """The first day of its training rows; of several horizons earlier by the longest."""
    last: date
    """The last day of its training and validation rows, and of their labels where these are of later days."""
    groups: np.ndarray | None = None
    """uint64 [m], sorted: digests of the groups that it learnt from, where its split by time has groups."""


def learnt_by(champion: Champion, name: str) -> Learnt | None:
    """Return what a champion learnt from; None where its commit does not say it.

    Raises TransientError where the remote does not answer.
    """
    if champion.as_of is None:
        return None
    git("fetch", "--quiet", "--no-tags", settings().origin, champion.commit)
    try:
        product = params.loads(git("show", f"{champion.commit}:{params.PARAMS_FILE}")).product(name)
        with tempfile.TemporaryDirectory() as folder:
            report = _brought(champion, Paths(name).report("split.json"), Path(folder) / "split.json")
            days = read_json(report)["days"]
            groups = None
            if product.split.by == "time" and product.split.group:
                file = _brought(champion, Paths(name).splits / GROUPS, Path(folder) / GROUPS)
                groups = read_table(file)["group"].to_numpy(np.uint64)
    except (UserError, KeyError):  # a declaration of an older form, or data that retention has let go
        return None
    first, last = learnt_days(product, days)
    return Learnt(
        as_of=date.fromisoformat(champion.as_of),
        product=product,
        first=first,
        last=last,
        groups=groups,
    )


def learnt_days(product: Product, days: dict[str, list[str]]) -> tuple[date, date]:
    """Return the first and the last day of what was learnt, by the first and last day of each part of a split."""
    if product.predict.horizons:  # labels of later days than their rows', up to the day before the first one of test
        first = date.fromisoformat(days["train"][0]) - timedelta(days=product.predict.longest_horizon)
        return first, date.fromisoformat(days["test"][0]) - timedelta(days=1)
    last = max(date.fromisoformat(days[part][1]) for part in ("train", "val"))
    return date.fromisoformat(days["train"][0]), last


def _brought(champion: Champion, path: Path, destination: Path) -> Path:
    """Bring a file that the champion's commit records. Raises UserError where it is lost or was never there."""
    remote.get(champion.commit, path, destination, f"{path} of {champion.version}", "train anew")
    return destination


def unseen(rows: pd.DataFrame, time: str, learnt: Learnt) -> np.ndarray:
    """Return which rows the champion has not learnt from. Shapes: bool [n]."""
    product = learnt.product
    day = rows[time].to_numpy("datetime64[D]")
    groups = digests(group_codes(rows, key_text(rows, list(product.key)), product))[:, 0]
    if product.split.by == "hash":
        held_out = split_by_hash(groups, product.split) == TEST
        # A later row of a group that it learnt from is of a customer that it knows.
        return held_out if product.split.group else held_out | (day > np.datetime64(learnt.as_of))
    seen = (day >= np.datetime64(learnt.first)) & (day <= np.datetime64(learnt.last))
    return ~seen if learnt.groups is None else ~seen & ~np.isin(groups, learnt.groups)
