"""A network and the rows that it learns from: by gradients, and in closed form once its encoder is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.compute import distributed
from model.compute.device import device
from model.features.encoded import Encoded
from model.features.fitted import Features
from model.features.fitting import MAX_FITTED_ROWS, chosen_rows
from model.features.kinds import CONTEXT
from model.network.blend import DEEP, LINE, PARTS
from model.network.heads.item_head import ItemHead
from model.network.network import Head, Network
from model.network.wide import Wide
from model.settings import TrainingPlan
from model.training.blending import fit_blend, likelihood, with_context
from model.training.closed_forms.context import fit_context
from model.training.closed_forms.probe import PRIOR_WEIGHT, fit_probe
from model.training.closed_forms.strengths import WideRidge, best_ridge, best_strength
from model.training.closed_forms.wide import Bags, fit_mix, fit_wide, wide_out_of_fold
from model.training.columns import MAX_ROWS, N_FOLDS, Rows, rows_of
from model.training.companion import FEW_ROWS, Unseen, can_have_companion, fit_companion, read_letters, said_by
from model.training.inference import encode_once, predict_in_batches
from model.training.loss import Loss, balanced_class_weights, loss_labels, recency_weights
from model.training.masking import disturb
from model.training.optimisation import Checkpoints, History, Optimisation


@dataclass(frozen=True)
class LabelledRows:
    """Rows to learn from or to validate on."""

    encoded: Encoded
    """The rows."""
    y: np.ndarray
    """Their labels, as `Head.label_array` gives them: [n] or [n, C]."""
    age_days: np.ndarray | None = None
    """float64 [n]: days from each row to the newest; needed for `TrainingSettings.half_life_days` alone."""
    n_later_days: int | None = None
    """Days that the rows are of, where they are later than the training rows: see `model.training.calibration`."""

    def take(self, rows: np.ndarray) -> "LabelledRows":
        """Return the given rows alone. Shapes: int64 [b]."""
        ages = None if self.age_days is None else self.age_days[rows]
        return LabelledRows(self.encoded.take(rows), self.y[rows], ages, self.n_later_days)


class Fit:
    """A network, the rows that it learns from, and the ways in which it learns from them."""

    def __init__(
        self, network: Network, features: Features, rows: LabelledRows, settings: TrainingPlan, companion: bool = False
    ) -> None:
        """Check the rows and weigh them; `companion` says whether to fit one.

        Raises: ValueError for a network without a target or of other features, and for labels that do not fit.
        """
        if network.target is None or network.sizes != features.sizes:
            raise ValueError(
                "network must have a target and be built for the given features, got another; "
                "use Network.with_head or load_pretrained"
            )
        self.network, self.target, self.settings, self.strength = network, network.target, settings, PRIOR_WEIGHT
        self.parts, self.labels = [rows.encoded], checked_labels(network, rows, "training")
        self.row_weights = recency_weights(rows.age_days, settings.half_life_days)
        is_balanced = settings.class_weights == "balanced"
        self.class_weights = balanced_class_weights(self.target, self.labels) if is_balanced else None
        self.loss = Loss(target=self.target, smoothing=settings.label_smoothing, class_weights=self.class_weights)
        self.unseen: Unseen | None = None
        self.ridge: WideRidge | None = None
        self.has_companion = companion and can_have_companion(network)
        if self.target.has_many_items and isinstance(network.head, ItemHead):
            network.head.draw_by(self.labels)
        compile_blocks(network.to(device()))

    def add_and_fit_beside(self, encoded: Encoded, labels: Tensor) -> None:
        """Fit what stands beside the encoder, contexts apart, to these rows too, of full weight."""
        self.parts.append(encoded)
        self.labels = torch.cat([self.labels, labels])
        if self.row_weights is not None:
            self.row_weights = torch.cat([self.row_weights, torch.ones(len(labels))])
        self.fit_linear()
        self.fit_companion()

    def encode_once(self) -> tuple[Tensor, np.ndarray]:
        """Return what the head reads of the rows, and which rows these are: see `inference.encode_once`."""
        encoded, pooled, chosen = encode_once(self.network, self.parts[0], self.settings.batch_tokens)
        if not self.settings.epochs:
            self.parts[0] = encoded
        return pooled, chosen

    def choose_strength(self, pooled: Tensor, chosen: np.ndarray, pooled_val: Tensor, labels_val: Tensor) -> None:
        """Choose how freely the head is fitted. Shapes: as of `fit_head`; of validation rows [m, d], and labels."""
        fitted = (pooled, self.labels[chosen], None if self.row_weights is None else self.row_weights[chosen])
        self.strength = best_strength(fitted, (pooled_val, labels_val), self.loss)

    def fit_head(self, pooled: Tensor, chosen: np.ndarray) -> float:
        """Fit the head to the chosen rows, of which it reads `pooled`; return their mean loss.

        Shapes: pooled float32 [n, d]; chosen int64 [n].
        """
        head = self.network.head
        assert isinstance(head, Head)
        labels = self.labels[chosen]
        weights = None if self.row_weights is None else self.row_weights[chosen]
        fit_probe(head, pooled, lambda logits: self.loss(logits, labels, weights), self.strength)
        with torch.no_grad():
            return float(self.loss(head.eval()(pooled.to(self.network.device)), labels, weights)) / len(labels)

    def run_optimiser(
        self,
        name: str,
        checkpoints: Checkpoints | None,
        validate: Callable[[], float] | None = None,
        on_epoch: Callable[[dict[str, float]], None] | None = None,
        *,
        epochs: float | None = None,
        seconds: float | None = None,
        until: float = np.inf,
    ) -> tuple[History, float]:
        """Take all steps, or those to epoch `until`, and load the weights that `settings.keep` names.

        Returns the history and the epochs that were planned: `epochs`, or fewer where these take more than `seconds`.
        """
        settings = self.settings if epochs is None else replace(self.settings, epochs=epochs)
        optimisation = Optimisation(self.network, self.parts[0], settings, name, checkpoints, seconds)
        history = optimisation.run(self._mean_loss, validate, on_epoch, until)
        self.network.load_state_dict(optimisation.best)
        return history, optimisation.epochs

    def fit_beside_encoder(
        self, validation: LabelledRows, labels: Tensor, deep: Tensor | None
    ) -> tuple[Tensor, np.ndarray] | None:
        """Fit what stands beside the trained encoder, and choose what each part weighs; `labels`: of `validation`.

        `deep` is what the encoder says of each training row when trained without it, where that is known; then what the
        blend says of these and the validation rows is returned, and their labels.
        Shapes: deep float32 [n, o]; returns float64 [m, o], labels as of `Head.loss_labels`.
        """
        self.fit_linear()
        judged = self.mix_linear(validation.encoded, labels, None if self.has_companion else deep)
        self.fit_context()  # before the companion: trees know their own rows and leave nothing of them
        self.fit_companion(validation)
        return judged if self.network.companion is None else self.blend(validation, deep)

    def fit_linear(self) -> None:
        """Fit the linear model of subwords, if there is one, to the rows of all parts."""
        self.network.eval()
        if self.network.wide is not None:
            weights = None if self.row_weights is None else self.row_weights.numpy()
            outputs, declared = self._outputs(), self.settings.wide_penalty
            self.ridge = self.ridge or best_ridge(self.network.wide, self.parts, outputs, weights, declared)
            fit_wide(self.network.wide, self.parts, outputs, self.ridge, self.target.head.ridge_scale, weights)

    def fit_companion(self, validation: LabelledRows | None = None) -> None:
        """Fit trees and a line to the columns of all parts, if they are asked for and there are such columns.

        What `validation` is of later days says how strongly; without such rows, parts of the rows themselves do.
        """
        if not self.has_companion:
            return
        weights, text = self._companion_weights(), None
        if self.network.wide is not None:
            text = self._text_out_of_fold(self.network.wide)
        rows = rows_of(self.parts, text, self.labels, weights, read_letters(self.network, self.parts))
        later = None
        if validation is not None and validation.n_later_days is not None:
            later = self._unseen(validation)
        self.unseen = fit_companion(self.network, rows, later, self.settings.seed)

    def _text_out_of_fold(self, wide: Wide) -> Tensor:
        """Return what the linear model of subwords says of each row when fitted without it. Shapes: [n, o]."""
        assert self.ridge is not None
        n_folds = N_FOLDS if len(self.labels) <= FEW_ROWS else 2
        bags, scale = Bags.of(wide, self.parts, self.ridge.letters), self.target.head.ridge_scale
        return wide_out_of_fold(bags, self._outputs(), self.ridge.penalty, scale, n_folds, self.settings.seed)

    def blend(self, validation: LabelledRows, deep: Tensor | None) -> tuple[Tensor, np.ndarray] | None:
        """Choose the weights of encoder and companion, on rows that none was fitted on.

        With `deep`, all are blended on training and validation rows. On rows of later days, too, all are blended at
        once. Else first what lies beside the encoder, by what it says, unseen, of training rows, then both on the
        validation rows. The context's line is added to each part: to the blend as often as weights sum to.
        Shapes and what is returned: as of `fit_beside_encoder`.
        """
        network, unseen = self.network, self.unseen
        assert network.companion is not None
        assert unseen is not None
        rows = self._unseen(validation)
        logits = {name: each.double() for name, each in said_by(network.companion, rows).items()}
        chosen = chosen_rows(len(validation.encoded), MAX_ROWS)
        logits[DEEP] = predict_in_batches(network, network.deep, validation.encoded, self.settings.batch_tokens, chosen)
        context, labels, n_days = self._context(rows.batch.get(CONTEXT)), rows.labels, validation.n_later_days
        if deep is not None:
            known = {DEEP: deep[unseen.at], **unseen.logits}
            logits = {name: torch.cat([known[name], each]) for name, each in logits.items()}
            before, labels = self._context(unseen.context), torch.cat([unseen.labels, labels])
            context = None if before is None or context is None else torch.cat([before, context])
        if deep is None and n_days is None:
            beside = self._weights(unseen.logits, unseen.labels, self._context(unseen.context))
            flat = torch.stack([logits[name] * beside[PARTS.index(name)] for name in logits]).sum(0)
            pair = self._weights({DEEP: logits[DEEP], LINE: flat}, labels, context)
            weights = np.where(np.array(PARTS) == DEEP, pair, pair[PARTS.index(LINE)] * beside)
        else:
            weights = self._weights(logits, labels, context, n_days)
        network.companion.set_mix(weights.tolist())
        self.weigh_context()
        mixed = (with_context(logits[name], context) * weights[PARTS.index(name)] for name in logits)
        return None if deep is None else (torch.stack([*mixed]).sum(0), labels.numpy())

    def weigh_context(self) -> None:
        """Add the context's line to the blend as often as the weights of its parts sum to."""
        if self.network.context is not None and self.network.companion is not None:
            self.network.context.weight.mul_(self.network.companion.mix.sum())

    def _weights(
        self, parts: Mapping[str, Tensor], labels: Tensor, context: Tensor | None, n_later_days: int | None = None
    ) -> np.ndarray:
        """Return the weights of parts, with context added; a later day is one observation. Shapes: [n, o] each."""
        added = {name: with_context(logits, context) for name, logits in parts.items()}
        loss = likelihood(self.target, added, labels, self.class_weights)
        return fit_blend(added, loss, n_later_days)

    @torch.no_grad()
    def _context(self, columns: Tensor | None) -> Tensor | None:
        """Return what the context columns of rows say. Shapes: float32 [n, k] -> float64 [n, o]."""
        context = self.network.context
        return None if context is None or columns is None else context(columns.to(self.network.device)).double().cpu()

    def _unseen(self, validation: LabelledRows) -> Rows:
        """Return rows that nothing was fitted on, with what the linear model of subwords says of them."""
        wide, encoded, text = self.network.wide, validation.encoded, None
        if wide is not None:
            text = predict_in_batches(
                self.network,
                lambda batch: wide(batch["bag"], batch["bag_weights"]),
                encoded,
                self.settings.batch_tokens,
            )
        return rows_of(
            [encoded], text, loss_labels(self.target, validation.y), None, read_letters(self.network, self.parts)
        )

    def _companion_weights(self) -> np.ndarray | None:
        """Return what each row weighs by its age and its class. Shapes: float64 [n]."""
        weights = None if self.row_weights is None else self.row_weights.double()
        if self.class_weights is not None and self.labels.ndim == 1:
            classes = self.labels.long()
            by_class = self.class_weights.reshape(len(self.class_weights), -1)[classes, 0].double()
            weights = by_class if weights is None else weights * by_class
        return None if weights is None else weights.numpy()

    def _outputs(self) -> np.ndarray:
        """Return what the linear model of subwords is fitted to. Shapes: float64 [n, o]."""
        return self.target.head.outputs(self.labels, self.target.n_outputs).numpy()

    def mix_linear(self, encoded: Encoded, labels: Tensor, deep: Tensor | None) -> tuple[Tensor, np.ndarray] | None:
        """Choose the weights of encoder and linear model, if there is one, on rows that neither was fitted on.

        With `deep`, these are training and validation rows, and what both together say of them is returned, unless
        context columns are to be added. Rows of one class say nothing: then each weighs as without any row.
        Shapes: as of `fit_beside_encoder`.
        """
        network, wide, head = self.network, self.network.wide, self.target.head
        if wide is None:
            return None

        def logits_of_both(batch: Mapping[str, Tensor]) -> Tensor:
            return torch.stack([network.deep(batch).float(), wide(batch["bag"], batch["bag_weights"])], 1)

        parts = predict_in_batches(network, logits_of_both, encoded, self.settings.batch_tokens)
        if deep is not None:
            parts = torch.cat([torch.stack([deep, self._text_out_of_fold(wide).float()], 1), parts])
            labels = torch.cat([self.labels, labels])
        if head.has_classes and not (labels != labels[:1]).any():
            wide.mix.fill_(head.mix_prior)
            return None
        by_encoder, by_line = parts.unbind(1)
        loss = Loss(target=self.target, class_weights=self.class_weights)
        fit_mix(wide, by_encoder, by_line, lambda logits: loss(logits, labels), head.mix_prior)
        if deep is None or network.context is not None:
            return None
        return (parts.double() * wide.mix.double().cpu()[:, None]).sum(1), labels.numpy()

    def fit_context(self) -> None:
        """Let the context columns, if there are any, explain what the rest of the network leaves of its rows."""
        network, encoded, head = self.network, self.parts[0], self.target.head
        if network.context is None:
            return
        chosen = chosen_rows(len(encoded), MAX_FITTED_ROWS)
        logits = predict_in_batches(network, network, encoded, self.settings.batch_tokens, chosen).double()
        outputs = head.outputs(self.labels[chosen], self.target.n_outputs)
        scores, informations = head.score_and_information(logits, outputs, self.class_weights)
        fit_context(network.context, encoded[CONTEXT][chosen], scores.numpy(), informations.numpy())

    def _mean_loss(self, rows: np.ndarray) -> Tensor:
        batch = disturb(self.network.batch_of(self.parts[0], rows), self.network.sizes, self.settings)
        with distributed.shard_batch(batch) as shard:
            chosen = rows[shard.rows]
            weights = None if self.row_weights is None else self.row_weights[chosen]
            total = self.loss.of_batch(self.network, shard.batch, self.labels[chosen], weights)
        return total * (shard.weight / len(rows))


def compile_blocks(network: Network) -> None:
    """Fuse what a GPU does in a block; all blocks are alike, so one is compiled for all."""
    if network.device.type == "cuda":
        for block in network.encoder.layer:
            block.compile(dynamic=True)


def checked_labels(network: Network, rows: LabelledRows, name: str) -> Tensor:
    """Return the labels of the rows called `name` as the loss takes them.

    Raises: ValueError for no rows, and for labels that are not as many or not finite.
    """
    assert network.target is not None
    labels = loss_labels(network.target, rows.y)
    if len(rows.encoded) == 0 or len(rows.encoded) != len(labels):
        raise ValueError(
            f"{name} rows must be at least one and each have a label, "
            f"got {len(rows.encoded)} rows and {len(labels)} labels; check the split"
        )
    if not labels.isfinite().all():
        raise ValueError(f"{name} labels must be finite, got NaN; leave rows without a label out")
    return labels
