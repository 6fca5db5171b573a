"""A language model that goes on after a row by a text: the row is read as a text too, its columns by their names.

It has what the training of texts, the export and the scorers ask of a network; no column is a token of its own.

Shape legend: b rows, n tokens of the prefix, p tokens that are kept from before, k of the prefix that are new, t new
subwords, d width, v subwords of the vocabulary.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.features.kinds import TEXT, kind_class
from model.network.decoder import TextDecoder
from model.network.language.blocks import AdaptedLinear, Blocks, Frozen
from model.network.network import Network
from model.settings import LanguageSettings, NetworkSettings
from model.target import Target

RANK = 8
"""Of the adapters that a training begins with."""
GIVEN_TYPE = torch.float16
"""In which weights from elsewhere are kept: of numbers that had 4 to 8 bits it leaves all that is known."""


class LanguageModel(Network):
    """A table of subwords, blocks, and the same table as a head."""

    def __init__(self, language: LanguageSettings, sizes: Sizes, target: Target | None = None) -> None:
        """Set the sizes; weights are 0 until they are loaded."""
        nn.Module.__init__(self)
        self.language, self.sizes, self.target = language, sizes, target
        self.settings = NetworkSettings(
            d_model=language.n_heads * language.d_head,
            n_layers=language.n_layers,
            n_heads=language.n_heads,
            d_feedforward=language.d_feedforward,
            dropout=0.0,
        )
        self.norm_epsilon = language.norm_epsilon
        self.head = self.filling = self.wide = self.companion = self.context = None
        self.table = Frozen(sizes.n_subwords, language.d_model)
        self.blocks = Blocks(language)
        self.decoder = LanguageDecoder(sizes)

    def given(self) -> dict[str, Tensor]:
        """Return the weights that no training moves, by name."""
        return dict(self.named_buffers())

    def give(self, weights: Mapping[str, Tensor]) -> None:
        """Take weights, as of `given`, without a copy.

        Raises: ValueError where they are not these.
        """
        wanted = {name: weight.shape for name, weight in self.given().items()}
        if wanted != {name: weight.shape for name, weight in weights.items()}:
            raise ValueError("the weights of a language model must be those of its sizes; import them again")
        for name, weight in weights.items():
            module, _, last = name.rpartition(".")
            setattr(self.get_submodule(module), last, weight)

    def past_shape(self, n_rows: int, n_kept: int) -> tuple[int, ...]:
        """Return the shape of the keys and values of so many tokens."""
        language = self.language
        return language.n_layers, 2, n_rows, language.n_kv_heads, n_kept, language.d_head

    def with_head(self, target: Target, settings: NetworkSettings, *, seed: int) -> "LanguageModel":
        """Return the same weights with adapters that a training can begin with."""
        network = LanguageModel(replace(self.language, adapter_rank=RANK), self.sizes, target)
        network.give(self.given())
        network.blocks.initialise_adapters(seed)
        return network

    @property
    def device(self) -> torch.device:
        """Return where the weights lie."""
        return self.table.weight.device

    @torch.no_grad()
    def merge(self) -> None:
        """Add what the adapters learnt to the given weights, which are then all there is."""
        for module in self.modules():
            if isinstance(module, AdaptedLinear):
                module.merge()
        self.language = replace(self.language, adapter_rank=0)


class LanguageDecoder(TextDecoder):
    """A softmax over the vocabulary."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes

    def prefix(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the subwords of rows, after the one that stands before every text. Shapes: int64 [b, n]."""
        given = batch[kind_class(TEXT).input]
        return nn.functional.pad(given, (1, 0), value=self.sizes.cls_id)

    def forward(self, network: LanguageModel, ids: Tensor, kept: Tensor | None, source: Tensor) -> tuple:
        """Return the vectors of new subwords, and keys and values of all.

        Shapes: ids int64 [b, k + t]; kept, as `Kept.past` (None: nothing is kept); source int64 [b, p + k + t].
        """
        real = source != self.sizes.pad_id
        places = (real.long().cumsum(1) - 1).clamp(min=0)[:, source.shape[1] - ids.shape[1] :]
        at = torch.arange(source.shape[1], device=ids.device)
        mask = real[:, None, None] & (at <= at[source.shape[1] - ids.shape[1] :, None])
        tokens = nn.functional.embedding(ids, network.table.weight).float()
        return network.blocks(tokens, places, mask, kept)

    def step(self, network: Network, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return shares, and what is kept."""
        assert isinstance(network, LanguageModel)
        rows, ids = self.prefix(batch).flatten()[batch["prefix_of"]], batch["ids"]
        source = torch.cat([batch["source"], rows, self._as_source(ids)], dim=1)
        vectors, past = self(network, torch.cat([rows, ids], dim=1), batch["past"], source)
        return self._logits(network, vectors[:, rows.shape[1] :]).log_softmax(-1), past, source

    def nats(self, network: Network, batch: Mapping[str, Tensor], ids: Tensor, wanted: Tensor) -> Tensor:
        """Return the negative log-likelihood of each wanted subword."""
        assert isinstance(network, LanguageModel)
        rows = self.prefix(batch)
        source = torch.cat([rows, self._as_source(ids)], dim=1)
        vectors, _ = self(network, torch.cat([rows, ids], dim=1), None, source)
        logits = self._logits(network, vectors[:, rows.shape[1] :])
        return logits.logsumexp(-1) - logits.gather(2, wanted[..., None]).squeeze(2)

    def _as_source(self, ids: Tensor) -> Tensor:
        """Return what is noted of subwords of a text: that they are no padding."""
        return torch.full_like(ids, self.sizes.cls_id)

    def _logits(self, network: LanguageModel, vectors: Tensor) -> Tensor:
        # Of a part of each row's tokens torch would multiply row by row, and read the whole table for each.
        return nn.functional.linear(vectors.contiguous(), network.table.weight.to(vectors.dtype)).float()
