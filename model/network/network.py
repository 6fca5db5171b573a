"""The network: a row's tokens, one encoder, and a head that answers.

What it predicts is a `model.target.Target`; without one it is an encoder alone, as masked modelling
leaves it. Training and files are elsewhere.

Shape legend: b rows, w windows of them (as many, where each is one), n tokens, d width, o outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from model.features.batches import collate
from model.features.encoded import Encoded, Sizes
from model.features.kinds import CATEGORY, CONTEXT, encoder_inputs, kind_class, sequence_kinds
from model.features.kinds.modules.columns import ColumnTokens
from model.features.kinds.modules.image import ImageTokens
from model.features.kinds.modules.time import TimeTokens
from model.network.blend import DEEP, LINE, PARTS, TEXT, TREES, Shape
from model.network.companion import Companion
from model.network.context import Context
from model.network.decoder import Decoder, TextDecoder
from model.network.dropout import Dropout
from model.network.embedding import RowEmbedding
from model.network.encoder import Encoder
from model.network.filling import Filling
from model.network.heads.item_head import ItemHead
from model.network.heads.span_head import SpanHead
from model.network.wide import Wide
from model.settings import NetworkSettings
from model.target import Target

NORM_EPSILON = 1e-12
INITIAL_DEVIATION = 0.02
DECODER = "decoder."
HEAD_PREFIXES = ("head.", "filling.", DECODER, "span.", "wide.", "companion.", "context.")
"""Beginnings of the names of weights that belong to a target."""


class Head(nn.Module):
    """From the pooled row to logits."""

    def __init__(self, d_model: int, n_outputs: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(d_model, d_model)
        self.dropout = Dropout(dropout, of="rows")
        self.out = nn.Linear(d_model, n_outputs)

    def forward(self, pooled: Tensor) -> Tensor:
        """Shapes: [b, d] -> [b, o]."""
        return self.out(self.dropout(torch.tanh(self.dense(self.dropout(pooled)))))


class Network(nn.Module):
    """Embeddings, encoder and, with a target, a head. Weights depend on `seed` alone."""

    def __init__(
        self,
        settings: NetworkSettings,
        sizes: Sizes,
        target: Target | None = None,
        *,
        seed: int = 0,
        norm_epsilon: float = NORM_EPSILON,
        companion: Shape | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.sizes, self.target, self.norm_epsilon = settings, sizes, target, norm_epsilon
        self.embeddings = RowEmbedding(sizes, settings.d_model, settings.dropout, norm_epsilon)
        self.encoder = Encoder(settings, norm_epsilon)
        fills = target is not None and not target.head.has_labels
        self.span: SpanHead | None = None
        self.head: Head | ItemHead | None = None
        if target and target.head.answers_lists:
            self.head = ItemHead(sizes.of(CATEGORY), settings.d_model, target, settings.dropout)
        elif target and target.head.answers_spans:
            self.span = SpanHead(sizes, settings.d_model, target, settings.dropout)
        elif target and not fills and not target.head.writes_texts:
            self.head = Head(settings.d_model, target.n_outputs, settings.dropout)
        self.decoder: TextDecoder | None = None
        if target and target.head.writes_texts:
            self.decoder = Decoder(sizes, settings.d_model, target.max_tokens, settings.dropout)
        self.filling = Filling(sizes, settings.d_model) if fills else None
        is_large = target is not None and target.has_many_items  # lines have a weight of every word for every item
        is_wide = self.head is not None and not is_large and sizes.n_texts and settings.wide_tokens
        self.wide = Wide(sizes.n_subwords, target.n_outputs, sizes.n_letter_groups) if target and is_wide else None
        self.companion: Companion | None = None
        if target and companion:
            self.companion = Companion(sizes, target.n_outputs, companion, reads_text=self.wide is not None)
        has_context = self.head is not None and not is_large and sizes.n_context
        self.context = Context(sizes.n_context, target.n_outputs) if target and has_context else None
        initialise(self, seed)

    def with_head(self, target: Target, settings: NetworkSettings, *, seed: int) -> "Network":
        """Return a network with the embeddings and encoder of this one and a fresh head, and its decoder if it has one.

        Of `settings` only what has no weights (dropout, pooling) is taken over; the sizes stay.
        """
        kept = replace(self.settings, dropout=settings.dropout, pooling=settings.pooling)
        network = Network(kept, self.sizes, target, seed=seed, norm_epsilon=self.norm_epsilon)
        weights, own = self.state_dict(), tuple(name for name in HEAD_PREFIXES if name != DECODER or not self.decoder)
        inherited = {name: weights[name] for name in weights if not name.startswith(own)}
        fresh, unexpected = network.load_state_dict(inherited, strict=False)
        assert not unexpected
        assert all(name.startswith(own) for name in fresh)
        return network

    def given(self) -> dict[str, Tensor]:
        """Return the weights that no training moves, by name: none here."""
        return {}

    def past_shape(self, n_rows: int, n_kept: int) -> tuple[int, ...]:
        """Return the shape of the keys and values of so many tokens, as of `model.network.decoder.Kept`."""
        settings = self.settings
        return settings.n_layers, 2, n_rows, settings.n_heads, n_kept, settings.d_head

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        return self.embeddings.word_embeddings.weight.device

    @property
    def blend(self) -> dict[str, float]:
        """Return the weight of each part that scores; none where nothing stands beside encoder and contexts."""
        if self.companion is not None:
            mix = dict(zip(PARTS, self.companion.mix.tolist(), strict=True))
        else:
            mix = {} if self.wide is None else dict(zip((DEEP, TEXT), self.wide.mix.tolist(), strict=True))
        return {part: weight for part, weight in mix.items() if weight}

    def batch_of(self, encoded: Encoded, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the given rows as `forward` reads them, on the device of the weights."""
        batch = collate(encoded, rows, self.sizes.pad_id)
        return {name: torch.from_numpy(array).to(self.device, non_blocking=True) for name, array in batch.items()}

    def encode(
        self, batch: Mapping[str, Tensor], hidden_columns: Tensor | None = None, only_first: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Return encoded tokens and which of them are real (None: all).

        Shapes: batch as `batches.collate` makes it; hidden_columns as `RowEmbedding.forward` takes them; returns
        [w, n, d], or [w, 1, d] with `only_first`, and bool [w, n].
        """
        inputs = {name: batch[name] for name in encoder_inputs() if name in batch}
        tokens = self.embeddings(inputs, hidden_columns)
        if self.span is not None:
            tokens = self.span.with_facts(tokens, batch["facts"])
        real = [kind.real(batch[kind.input], self.sizes) for kind in sequence_kinds() if kind.input in batch]
        if not real:
            return self.encoder(tokens, None, only_first), None
        sequences = real[0] if len(real) == 1 else torch.cat(real, dim=1)
        n_before = tokens.shape[1] - sequences.shape[1]
        is_real = nn.functional.pad(sequences, (n_before, 0), value=True)
        return self.encoder(tokens, is_real[:, None, None], only_first), is_real

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits; of a regression, the standardised prediction. Shapes: as in `encode` -> [b, o]."""
        if self.filling is not None:
            return self.filling.surprises(self, batch)
        if self.companion is not None and not self.training:
            logits = self.blended(batch)
        elif self.wide is not None and not self.training:  # it is fitted afterwards, and weighs nothing until then
            logits = self.wide.mixed(self.deep(batch), batch["bag"], batch["bag_weights"])
        else:
            logits = self.deep(batch)
        return logits if self.context is None else logits.float() + self.context(batch[CONTEXT])

    def blended(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of what all parts say that have a weight. Shapes: as in `forward`."""
        assert self.companion is not None
        parts = self.parts(batch, self.companion.shape.parts)
        return torch.stack([self.companion.mix[PARTS.index(name)] * logits for name, logits in parts.items()]).sum(0)

    def parts(self, batch: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Return the logits of parts of the blend, by their names. Shapes: as in `forward`."""
        companion = self.companion
        text = None if self.wide is None else self.wide(batch["bag"], batch["bag_weights"])
        said_by: dict[str, Callable[[], Tensor | None]] = {
            DEEP: lambda: self.deep(batch).float(),
            TEXT: lambda: text,
            LINE: lambda: None if companion is None else companion.line_logits(batch, text, self._letters(batch)),
            TREES: lambda: None if companion is None else companion.tree_logits(batch, text),
        }
        logits = {name: said_by[name]() for name in names}
        return {name: each for name, each in logits.items() if each is not None}

    def _letters(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor] | None:
        """Return what the line reads of letters, if it does: as of `Wide.letters`."""
        if self.wide is None or self.companion is None or not self.companion.line.n_letter_groups:
            return None
        return self.wide.letters(batch["bag"], batch["bag_weights"])

    def alone(self, batch: Mapping[str, Tensor], name: str) -> Tensor:
        """Return the logits of one part of the blend, and of the context as it is for that part. Shapes: [b, o]."""
        logits = self.parts(batch, [name])[name]
        if self.context is None:
            return logits
        times = 1.0 if self.companion is None else self.companion.mix.sum()
        return logits.float() + self.context(batch[CONTEXT]) / times

    def tree_inputs(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return what the trees read. Shapes: as in `forward` -> [b, k]."""
        assert self.companion is not None
        text = None if self.wide is None else self.wide(batch["bag"], batch["bag_weights"])
        return self.companion.columns.for_trees(batch, text)

    def deep(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits of encoder and head alone. Shapes: as in `forward`."""
        assert self.head is not None, "a network without a target has nothing to answer"
        if isinstance(self.head, ItemHead):
            return self.head(*self._for_items(batch))
        return self.head(self.pooled(batch))

    def item_losses(self, batch: Mapping[str, Tensor], labels: Tensor, smoothing: float) -> Tensor:
        """Return the loss of each row, where the target has many items; see `ItemHead.losses`. Shapes: -> [b]."""
        assert isinstance(self.head, ItemHead)
        return self.head.losses(*self._for_items(batch), labels, smoothing)

    def _for_items(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None, Tensor]:
        """Return what a head of items reads: the pooled rows, their categories, and the vectors of all slots."""
        category = kind_class(CATEGORY)
        return self.pooled(batch), batch.get(category.input), self.embeddings.get_parameter(f"{category.module}.weight")

    def pooled(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the vector of every row that the head reads: the mean of its windows.

        Shapes: as in `encode` -> [b, d].
        """
        if "pooled" in batch:
            return batch["pooled"]
        pooled = self._pooled_windows(batch)
        if "windows" not in batch:
            return pooled
        windows = batch["windows"].to(pooled.dtype)
        return windows @ pooled / windows.sum(1, keepdim=True)

    def _pooled_windows(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the [CLS] token of every window, or the mean of all its tokens. Shapes: as in `encode` -> [w, d]."""
        if self.settings.pooling == "cls":
            tokens, _ = self.encode(batch, only_first=True)
            return tokens[:, 0]
        tokens, real = self.encode(batch)
        return tokens.mean(1) if real is None else _mean(tokens, real)

    def scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Probabilities, calibrated as the target says, or predictions in the target's own units.

        Shapes: float32 [b] for binary (of the positive class) and regression, else [b, C], of lists, spans [b, k, 2].
        """
        assert self.target is not None, "a network without a target has no scores"
        if self.span is not None:
            numbers, shares = self.lists(batch)
            return torch.stack([numbers.float(), shares], -1)
        return self.target.head.scores(self.allowed(batch), self.target)

    def lists(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the numbers of the likeliest items, and their scores; of spans as of `SpanHead.answers`.

        Shapes: int64 [b, k], float32 [b, k].
        """
        assert self.target is not None
        if self.span is not None:
            return self.span.answers(self, batch)
        return self.target.head.lists(self.allowed(batch), self.target)

    def allowed(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits, minus infinity for items that a row excludes. Shapes: as in `forward`."""
        logits = self(batch).float()
        if isinstance(self.head, ItemHead):
            return self.head.allowed(logits, batch.get(kind_class(CATEGORY).input))
        return logits


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Give every weight its first value; nothing else in the package does."""
    random = torch.Generator().manual_seed(seed)
    for module in model.modules():
        match module:
            case nn.Linear():
                nn.init.xavier_uniform_(module.weight, generator=random)
                nn.init.zeros_(module.bias)
            case nn.Conv2d():
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu", generator=random)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            case nn.LayerNorm():
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            case nn.Embedding():
                nn.init.normal_(module.weight, std=INITIAL_DEVIATION, generator=random)
            case ColumnTokens():
                for weight in (module.weight, module.bias, module.missing):
                    nn.init.normal_(weight, std=INITIAL_DEVIATION, generator=random)
                if isinstance(module, TimeTokens) and module.later is not None:
                    nn.init.zeros_(module.later)
            case ImageTokens():
                for weight in (module.place, module.unseen):
                    nn.init.normal_(weight, std=INITIAL_DEVIATION, generator=random)
            case ItemHead() | Decoder():
                nn.init.zeros_(module.bias)
            case RowEmbedding():
                nn.init.normal_(module.column_masks, std=INITIAL_DEVIATION, generator=random)


def _mean(tokens: Tensor, real: Tensor) -> Tensor:
    weight = real[..., None].to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1)
