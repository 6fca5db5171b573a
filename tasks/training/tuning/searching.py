"""Search better settings of a product's network and trainings, judged on the validation rows.

`make tune PRODUCT=... TRIALS=20` needs what `dvc repro split@<product>` writes. A trial pretrains and trains in a
folder of its own; its score is the gates' metric on the validation rows, never on the test rows. The first trial is
params.yaml as it is. Trials are kept in .lamplighter/tune: killed and started again, the search goes on until there
are as many as asked for. The best settings are written as a patch of params.yaml for review; nothing is applied or
committed. Other data, other code or other fixed settings begin another search.
"""

import fcntl
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model.heads import LOWER_IS_BETTER
from tasks.params import PARAMS_FILE, Product
from tasks.rows import model_inputs
from tasks.runtime.errors import UserError
from tasks.runtime.files import atomic_file
from tasks.runtime.fingerprints import fingerprint
from tasks.runtime.paths import Paths
from tasks.training import code, pretraining
from tasks.training.fine_tuning import fine_tune
from tasks.training.gate_metric import gate_metric
from tasks.training.predictions import measured_thresholds
from tasks.training.tuning import search_space
from tasks.training.tuning.trials import Trials, split_files

if TYPE_CHECKING:
    from optuna import Trial

FOLDER = Path(".lamplighter/tune")


def tune(product: Product, n_trials: int, prefix: str = "") -> str:
    """Search until there are `n_trials`, of the settings whose place begins with `prefix`; write the best as a patch.

    Raises UserError where the splits are absent, no setting is called so, or another search is at work.
    """
    space = search_space.search_space(product)
    parameters = [parameter for parameter in space if parameter.place.startswith(prefix)]
    if not parameters:
        places = ", ".join(parameter.place for parameter in space)
        raise UserError(f"knobs must be the beginning of a setting's place, got {prefix!r}; use one of {places}")
    _check_splits(product)
    product = _settled(product)
    home = FOLDER / product.name
    with lock(home):
        trials = Trials(product, parameters, home)
        _search(trials, home, n_trials)
        for folder in [*home.glob("pretrained-*"), *home.glob("trial-*")]:
            shutil.rmtree(folder)
        n_val = len(model_inputs.split_part(Paths(product.name).splits, "val", product))
        print(trials.table(n_val), flush=True)
        return _propose(trials, home)


def _check_splits(product: Product) -> None:
    absent = [file for file in split_files(product) if not file.exists()]
    if absent:
        raise UserError(
            f"{absent[0].parent} must hold the rows to train on, and has no {absent[0].name}; "
            f"run dvc repro split@{product.name}"
        )


def _settled(product: Product) -> Product:
    """Return the product with a value for what its training leaves open, as its training rows ask for."""
    train = product.model.train
    if None not in (train.epochs, train.learning_rate, train.batch_tokens):
        return product
    splits = Paths(product.name).splits
    features = pretraining.fit_features(product, splits)
    rows = model_inputs.split_part(splits, "train", product)
    n_tokens = sum(int(features.encode(piece).n_tokens.sum()) for piece in rows)
    plan = replace(train.for_rows(n_tokens, is_imported=product.model.is_imported), lengths=())
    return replace(product, model=replace(product.model, train=plan))


@contextmanager
def lock(home: Path) -> Iterator[None]:
    """Hold the folder of a search, or raise UserError where another process does."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{home} must serve one search at a time, and one is at work; wait for its end") from None
        yield


def _search(trials: Trials, home: Path, n_trials: int) -> None:
    from tqdm import tqdm

    n_finished = len(trials.finished())
    if n_finished:
        print(f"{n_finished} trials are there already", flush=True)

    def objective(trial: "Trial") -> float:
        settings = trials.suggest(trial)
        model = search_space.with_values(trials.product.model, settings)
        return score(trial, replace(trials.product, model=model), home)

    with tqdm(total=n_trials, initial=min(n_finished, n_trials), desc="tune", unit="trial") as progress:
        while len(trials.finished()) < n_trials:
            trials.study.optimize(objective, n_trials=1)
            if best := next(iter(trials.ranking()), None):
                progress.set_postfix({trials.product.gates.metric: f"{best.value:.4f}"}, refresh=False)
            progress.update(len(trials.finished()) - progress.n)


def score(trial: "Trial", product: Product, home: Path) -> float:
    """Train a trial's model and return its metric on the validation rows.

    Raises TrialPruned where the trial is not worth going on with or has no score, UserError where none can have one.
    """
    import optuna

    # The loss says after every epoch whether to go on; a pruner wants it in the direction of the metric.
    sign = 1 if product.gates.metric in LOWER_IS_BETTER else -1

    def report(entry: dict[str, float]) -> None:
        trial.report(sign * entry["val_loss"], math.ceil(entry["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    paths = Paths(product.name, root=home / f"trial-{trial.number}")
    try:
        _link(paths.splits, Paths(product.name).splits)
        _link(paths.pretrained, _pretrained(product, home))
        try:
            fine_tune(product, paths, on_epoch=report, refit=False)
        except UserError as error:
            print(f"trial {trial.number}: {error}", flush=True)
            raise optuna.TrialPruned from None
        value, finite = _metric_on_validation_rows(product, paths)
    finally:
        shutil.rmtree(paths.root, ignore_errors=True)
    if value is None and not finite:
        print(f"trial {trial.number}: a score is no number", flush=True)
        raise optuna.TrialPruned
    if value is None:
        raise UserError(
            f"{product.gates.metric} must be defined on the validation rows, and is not; "
            f"see products.{product.name}.split"
        )
    return value


def _metric_on_validation_rows(product: Product, paths: Paths) -> tuple[float | None, bool]:
    """Return the gates' metric of the model that was trained below `paths`, and whether its scores are finite."""
    from model.scoring.scorer import TorchScorer

    model = TorchScorer(paths.trained)
    rows = model_inputs.split_part(paths.splits, "val", product)
    classes = model_inputs.all_classes(rows.labels, product, model.classes)
    y = model_inputs.targets(rows.labels, product, classes)
    scores = model_inputs.scores_of_classes(model_inputs.scores(model, rows), model.classes, classes)
    rule = model_inputs.prediction_rule(product, measured_thresholds(product, paths.trained), model.classes, classes)
    return gate_metric(product, y, scores, rule=rule), bool(np.isfinite(scores).all())


def _pretrained(product: Product, home: Path) -> Path:
    """Return the folder of weights to start from; trials that agree in what makes them share them."""
    model, network = product.model, product.model.network_settings()
    if model.init != "pretrain":
        network = replace(network, dropout=0.0)  # it has no part in the first weights
    settings = [asdict(network), asdict(model.pretrain), model.init]
    name = fingerprint(code=code.PRETRAINING, data=split_files(product), settings=settings)
    paths = Paths(product.name, root=home / f"pretrained-{name[:16]}")
    if not paths.pretrained.exists():
        _link(paths.splits, Paths(product.name).splits)
        pretraining.pretrain(product, paths)
    return paths.pretrained


def _link(link: Path, to: Path) -> None:
    """Make `link` another name of the folder `to`, also where a killed process has done so."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(to.absolute())


def _propose(trials: Trials, home: Path) -> str:
    """Write the best settings as a patch, where they differ from the current ones."""
    ranking = trials.ranking()
    changes = trials.changes(ranking[0]) if ranking else {}
    if not changes:
        return "nothing was better than params.yaml as it is"
    patch = home / "params.patch"
    diff = search_space.patch(PARAMS_FILE.read_text("utf-8"), trials.product.name, changes)
    with atomic_file(patch) as temporary:
        temporary.write_text(diff, "utf-8")
    print(diff, flush=True)
    return f"the best is written as {patch}; look at it, then: git apply {patch}"
