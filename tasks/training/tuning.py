"""Search better settings of a product's network and trainings, judged on the validation rows.

`python -m tasks.commands tune <product> --trials 20`, or `make tune PRODUCT=... TRIALS=20`, needs what `dvc repro
split@<product>` writes. A trial runs the stages pretrain and train in a folder apart; its score is the gates'
metric on the validation rows, never on the test rows. The first trial is params.yaml as it stands. Trials are kept
in .lamplighter/tune: killed and started again, the search goes on until there are as many as asked for. The best
settings are written as a patch of params.yaml for review; nothing is applied or committed. Other data or other
fixed settings begin another search.
"""

import fcntl
import hashlib
import json
import math
import shutil
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from tasks.params import LOWER_IS_BETTER, PARAMS_FILE, Product
from tasks.rows import model_inputs
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file, file_sha256
from tasks.runtime.paths import Paths
from tasks.training import search_space
from tasks.training.scratch import movable, scratch
from tasks.training.search_space import Parameter

if typing.TYPE_CHECKING:
    import optuna

FOLDER = Path(".lamplighter/tune")
SHOWN = 5
"""Trials in the table at the end."""
SETTINGS = "settings"
"""What a trial's settings are kept under, as they were used."""
PRESENT = "present"
"""What the trial of params.yaml as it stands is marked with."""


def tune(product: Product, as_of: date, trials: int, only: str = "") -> str:
    """Search until there are `trials` trials, of the knobs whose place starts with `only`; write the best as a patch.

    Raises UserError where the splits are absent, no knob is called so, or another search is at work.
    """
    searched = [knob for knob in search_space.search_space(product) if knob.place.startswith(only)]
    if not searched:
        places = ", ".join(knob.place for knob in search_space.search_space(product))
        raise UserError(f"knobs must be the beginning of a setting's place, got {only!r}; use one of {places}")
    _check(product)
    home = FOLDER / product.name
    with _alone(home):
        study = _study(product, home, searched)
        _search(study, product, as_of, home, searched, trials)
        for folder in [*home.glob("pretrained-*"), *home.glob("trial-*")]:
            shutil.rmtree(folder)
        print(_table(study, product), flush=True)
        return _propose(study, product, home)


def _check(product: Product) -> None:
    absent = [
        name for name in ("train", "val", "pretrain") if not (Paths(product.name).splits / f"{name}.parquet").exists()
    ]
    if absent:
        raise UserError(
            f"{Paths(product.name).splits} must hold the rows to train on, and has no {absent[0]}.parquet; "
            f"run dvc repro split@{product.name}"
        )


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{home} must serve one search at a time, and one is at work; wait for its end") from None
        yield


def _study(product: Product, home: Path, searched: list[Parameter]) -> "optuna.Study":
    """The search as it stands: what a killed process had begun is begun again."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    name = _inputs_sha256(product, searched)
    storage = _storage(home / "trials.sqlite")
    # Another seed at every start: the same one would propose its first settings over again.
    known = {summary.study_name: summary.n_trials for summary in optuna.get_all_study_summaries(storage)}
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        direction="minimize" if product.gates.metric in LOWER_IS_BETTER else "maximize",
        sampler=optuna.samplers.TPESampler(seed=known.get(name, 0), n_startup_trials=8),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
    )
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    present = {knob.place: search_space.current_value(product, knob) for knob in searched}
    if not any(trial.user_attrs.get(PRESENT) == present for trial in [*_done(study), *_waiting(study)]):
        study.enqueue_trial(present, user_attrs={PRESENT: present})
    return study


def _storage(file: Path) -> "optuna.storages.RDBStorage":
    """The trials' store; its tables appear all at once, so that a process killed meanwhile leaves nothing half made."""
    from optuna.storages import RDBStorage

    if not file.exists():
        with atomic_file(file.absolute()) as aside:
            RDBStorage(f"sqlite:///{aside}").engine.dispose()
    return RDBStorage(f"sqlite:///{file.absolute()}")


def _search(
    study: "optuna.Study", product: Product, as_of: date, home: Path, searched: list[Parameter], trials: int
) -> None:
    from tqdm import tqdm

    done = len(_done(study))
    if done:
        print(f"{done} trials are there already", flush=True)

    def objective(trial: "optuna.Trial") -> float:
        settings = {knob.place: _suggested(trial, knob, product) for knob in searched}
        trial.set_user_attr(SETTINGS, settings)
        there = movable(product)
        return _score(trial, replace(there, model=search_space.with_values(there.model, settings)), as_of, home)

    with tqdm(total=trials, initial=min(done, trials), desc="tune", unit="trial") as progress:
        while len(_done(study)) < trials:
            study.optimize(objective, n_trials=1)
            if best := next(iter(_ranking(study, product)), None):
                progress.set_postfix({product.gates.metric: f"{best.value:.4f}"}, refresh=False)
            progress.update(len(_done(study)) - progress.n)


def _suggested(trial: "optuna.Trial", knob: Parameter, product: Product) -> float | int:
    present = search_space.current_value(product, knob)
    if knob.choices:
        return trial.suggest_categorical(knob.place, sorted({*knob.choices, int(present)}))
    low, high = min(knob.low, present), max(knob.high, present)
    value = trial.suggest_float(knob.place, low, high, log=_by_factors(knob, product))
    # What a person would write, and no digit more; the present value stays what it is.
    return present if value == present else min(high, max(low, float(f"{value:.2g}")))


def _by_factors(knob: Parameter, product: Product) -> bool:
    """Whether to search so; no factor leads to a present 0."""
    return knob.log and search_space.current_value(product, knob) > 0


def _score(trial: "optuna.Trial", product: Product, as_of: date, home: Path) -> float:
    """The metric on the validation rows of one trial's model."""
    import optuna

    from model.scoring.scorer import TorchScorer
    from tasks.train import train

    paths, metric = Paths(product.name), product.gates.metric
    # The loss says after every epoch whether to go on; a pruner wants it in the direction of the metric.
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def report(entry: dict[str, float]) -> None:
        trial.report(sign * entry["val_loss"], math.ceil(entry["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    folder = home / f"trial-{trial.number}"
    try:
        pretrained = _pretrained(product, as_of, home)
        with scratch(folder, [paths.splits]):
            paths.pretrained.parent.mkdir(parents=True, exist_ok=True)
            paths.pretrained.symlink_to(pretrained)
            try:
                train(product, as_of, on_epoch=report, refit=False)
            except UserError as error:
                print(f"trial {trial.number}: {error}", flush=True)
                raise optuna.TrialPruned from None
            model = TorchScorer(paths.trained)
            rows, y = model_inputs.split_part(paths.splits, "val", product).answerable(model.classes)
            scores = model_inputs.scores(model, rows)
            value = model_inputs.gate_metric(product, y, scores, model.classes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if value is None and not np.isfinite(scores).all():
        print(f"trial {trial.number}: a score is no number", flush=True)
        raise optuna.TrialPruned
    if value is None:
        raise UserError(
            f"{metric} must be defined on the validation rows, and is not; see products.{product.name}.split"
        )
    return float(value)


def _pretrained(product: Product, as_of: date, home: Path) -> Path:
    """Where the weights to start from lie; trials that agree in what makes them share them."""
    from tasks.pretrain import pretrain

    model, settings = product.model, product.model.network_settings()
    if model.init != "pretrain":
        settings = replace(settings, dropout=0.0)  # it has no part in the first weights
    told = [asdict(settings), asdict(model.pretrain), model.init, _data_sha256(product)]
    folder = (home / f"pretrained-{_sha256(told)[:16]}").absolute()
    paths = Paths(product.name)
    if not (folder / paths.pretrained).exists():
        with scratch(folder, [paths.splits]):
            pretrain(product, as_of)
    return folder / paths.pretrained


def _done(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])


def _waiting(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=[TrialState.WAITING])


def _ranking(study: "optuna.Study", product: Product) -> list["optuna.trial.FrozenTrial"]:
    """The trials that came to their end, best first; the present settings before others that are as good."""
    sign = 1 if product.gates.metric in LOWER_IS_BETTER else -1
    ended = [
        (trial, trial.value) for trial in _done(study) if trial.value is not None and trial.state.name == "COMPLETE"
    ]
    ended.sort(key=lambda pair: (sign * pair[1], bool(_changes(pair[0], product)), pair[0].number))
    return [trial for trial, _ in ended]


def _table(study: "optuna.Study", product: Product) -> str:
    """The best trials, and what each would change."""
    ranking = _ranking(study, product)
    shown = ranking[:SHOWN] + [trial for trial in ranking[SHOWN:] if not _changes(trial, product)]
    lines = [f"{'trial':>5}  {product.gates.metric + ' (val)':>14}  settings"]
    for trial in shown:
        settings = ", ".join(f"{place} {value:g}" for place, value in _changes(trial, product).items())
        lines.append(f"{trial.number:>5}  {trial.value:>14.4f}  {settings or 'params.yaml as it stands'}")
    pruned = len(_done(study)) - len(ranking)
    rows = len(model_inputs.split_part(Paths(product.name).splits, "val", product))
    ended = f"{len(ranking)} trials came to their end, {pruned} were stopped early; {rows:,} validation rows"
    return "\n".join([*lines, ended])


def _changes(trial: "optuna.trial.FrozenTrial", product: Product) -> dict[str, Any]:
    settings = trial.user_attrs[SETTINGS]
    return {
        place: value
        for place, value in settings.items()
        if value != search_space.current_value(product, Parameter(place=place))
    }


def _propose(study: "optuna.Study", product: Product, home: Path) -> str:
    """Write the best settings as a patch, where they are others than the present ones."""
    ranking = _ranking(study, product)
    changes = _changes(ranking[0], product) if ranking else {}
    if not changes:
        return "nothing was better than params.yaml as it stands"
    patch = home / "params.patch"
    diff = search_space.patch(PARAMS_FILE.read_text("utf-8"), product.name, changes)
    with atomic_file(patch) as aside:
        aside.write_text(diff, "utf-8")
    print(diff, flush=True)
    return f"the best is written as {patch}; look at it, then: git apply {patch}"


def _inputs_sha256(product: Product, searched: list[Parameter]) -> str:
    """Trials can be compared as long as the rows, the metric and the settings that are not searched are the same."""
    model = asdict(product.model)
    for knob in searched:
        part, _, name = knob.place.partition(".")
        model[part].pop(name, None)
    told: list[Any] = [model, product.columns, asdict(product.target), product.gates.metric, _data_sha256(product)]
    told.append([(knob.place, _by_factors(knob, product)) for knob in searched])
    return f"{product.name}-{_sha256(told)[:16]}"


def _data_sha256(product: Product) -> str:
    splits = Paths(product.name).splits
    return _sha256([file_sha256(splits / f"{name}.parquet") for name in ("train", "val", "pretrain")])


def _sha256(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
