"""Keep the trials of a search for better settings in a file that outlives the process, and rank them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from model.heads import LOWER_IS_BETTER
from tasks.params import Product
from tasks.runtime.files import atomic_file
from tasks.runtime.fingerprints import fingerprint
from tasks.runtime.paths import Paths
from tasks.training import code
from tasks.training.tuning.search_space import Parameter, Settings, current_value

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

SHOWN = 5
"""Trials in the table at the end."""
SETTINGS = "settings"
"""The attribute of a trial that holds its settings by place, as they were used."""
CURRENT = "present"
"""The attribute of the trial of params.yaml as it is, with the settings it had then."""


class Trials:
    """The trials of one search: the same product, data, code and settings that are not searched."""

    def __init__(self, product: Product, parameters: list[Parameter], home: Path) -> None:
        """Open the search's trials below `home`; one that a killed process had begun is given up."""
        import optuna
        from optuna.trial import TrialState

        self.product, self.parameters = product, parameters
        self.sign = 1 if product.gates.metric in LOWER_IS_BETTER else -1
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        name, storage = search_name(product, parameters), _storage(home / "trials.sqlite")
        # Another seed at every start: the same one would propose its first settings over again.
        known = {summary.study_name: summary.n_trials for summary in optuna.get_all_study_summaries(storage)}
        self.study: Study = optuna.create_study(
            study_name=name,
            storage=storage,
            load_if_exists=True,
            direction="minimize" if self.sign > 0 else "maximize",
            sampler=optuna.samplers.TPESampler(seed=known.get(name, 0), n_startup_trials=8),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1),
        )
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            self.study.tell(trial.number, state=TrialState.FAIL)
        current = {parameter.place: current_value(product, parameter.place) for parameter in parameters}
        waiting = self.study.get_trials(deepcopy=False, states=[TrialState.WAITING])
        if not any(trial.user_attrs.get(CURRENT) == current for trial in [*self.finished(), *waiting]):
            self.study.enqueue_trial(current, user_attrs={CURRENT: current})

    def finished(self) -> "list[FrozenTrial]":
        """Return the trials that are complete or were stopped early."""
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED])

    def suggest(self, trial: "Trial") -> Settings:
        """Return settings to try, by place."""
        settings = {parameter.place: self._suggest(trial, parameter) for parameter in self.parameters}
        trial.set_user_attr(SETTINGS, settings)
        return settings

    def _suggest(self, trial: "Trial", parameter: Parameter) -> float | int:
        current = current_value(self.product, parameter.place)
        if parameter.choices:
            return trial.suggest_categorical(parameter.place, sorted({*parameter.choices, int(current)}))
        low, high = min(parameter.low, current), max(parameter.high, current)
        value = trial.suggest_float(parameter.place, low, high, log=_by_factors(parameter, self.product))
        # What a person would write, and no digit more; the current value stays what it is.
        return current if value == current else min(high, max(low, float(f"{value:.2g}")))

    def ranking(self) -> "list[FrozenTrial]":
        """Return the complete trials, best first; the current settings before others that are as good."""
        complete = [
            (self.sign * trial.value, bool(self.changes(trial)), trial.number, trial)
            for trial in self.finished()
            if trial.value is not None and trial.state.name == "COMPLETE"
        ]
        return [trial for *_, trial in sorted(complete, key=lambda entry: entry[:3])]

    def changes(self, trial: "FrozenTrial") -> Settings:
        """Return the settings of a trial that differ from params.yaml, by place."""
        settings = trial.user_attrs[SETTINGS].items()
        return {place: value for place, value in settings if value != current_value(self.product, place)}

    def table(self, n_val: int) -> str:
        """Return the best trials as lines of text, and what each would change."""
        ranking = self.ranking()
        shown = ranking[:SHOWN] + [trial for trial in ranking[SHOWN:] if not self.changes(trial)]
        lines = [f"{'trial':>5}  {self.product.gates.metric + ' (val)':>14}  settings"]
        for trial in shown:
            settings = ", ".join(f"{place} {value:g}" for place, value in self.changes(trial).items())
            lines.append(f"{trial.number:>5}  {trial.value:>14.4f}  {settings or 'params.yaml as it is'}")
        n_pruned = len(self.finished()) - len(ranking)
        lines.append(f"{len(ranking)} trials are complete, {n_pruned} were stopped early; {n_val:,} validation rows")
        return "\n".join(lines)


def search_name(product: Product, parameters: list[Parameter]) -> str:
    """Return a name of all that makes trials comparable: rows, code, metric, and what is not searched."""
    model = asdict(product.model)
    for parameter in parameters:
        part, _, name = parameter.place.partition(".")
        model[part].pop(name, None)
    searched = [(parameter.place, _by_factors(parameter, product)) for parameter in parameters]
    settings = [model, product.inputs, asdict(product.target), product.gates.metric, searched]
    places = {*code.PRETRAINING, *code.FINE_TUNING}
    return f"{product.name}-{fingerprint(code=places, data=split_files(product), settings=settings)[:16]}"


def split_files(product: Product) -> list[Path]:
    """Return the files of rows that a search reads."""
    parts = ("train", "val", *(("pretrain",) if product.model.init == "pretrain" else ()))
    return [Paths(product.name).splits / f"{part}.parquet" for part in parts]


def _by_factors(parameter: Parameter, product: Product) -> bool:
    """Return whether to search by factors; no factor leads to a current value of 0."""
    return parameter.log and current_value(product, parameter.place) > 0


def _storage(file: Path) -> "RDBStorage":
    """Open the trials' store; its tables appear all at once, so that a kill meanwhile leaves nothing half made."""
    from optuna.storages import RDBStorage

    if not file.exists():
        with atomic_file(file.absolute()) as temporary:
            RDBStorage(f"sqlite:///{temporary}").engine.dispose()
    return RDBStorage(f"sqlite:///{file.absolute()}")
