"""What goes on after a row by a text, subword by subword, through the blocks that read the row.

The tokens of a row are a prefix: they read one another, and each subword of the text reads them and those before it.
Keys and values are kept, so that each further subword costs one token. What comes next is a subword of the vocabulary,
or one of the row's own texts that is copied: what is rare, such as a name, is found there.

Source: Vaswani et al. 2017, section 3.2.3 (what comes later is not read); Dong et al. 2019, "Unified Language Model
Pre-training" (a prefix that reads itself); See et al. 2017, "Get To The Point" (copying); Press and Wolf 2017, "Using
the Output Embedding to Improve Language Models" (tied vectors).

Shape legend: b rows, n tokens of the prefix, p tokens that are kept from before, k of the prefix that are new, t new
subwords, d width, v subwords of the vocabulary.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.features.kinds import TEXT, encoder_inputs, kind_class, sequence_kinds
from model.network.dropout import Dropout
from model.network.encoder import HIDDEN

if TYPE_CHECKING:
    from model.network.network import Network

LEAST_SHARE = 1e-30
"""Of a subword that is not copied, so that its logarithm is finite."""


class Kept(NamedTuple):
    """What is kept of the tokens that were read."""

    past: Tensor
    """[blocks, 2, b, h, p, d / h]: keys and values of each block."""
    source: Tensor
    """int64 [b, p]: the subword that may be copied from each token, the id of [CLS] or [SEP] where none may, that of
    [PAD] for padding."""


class TextDecoder(nn.Module):
    """What foresees a text, as a training and the steps of a writer ask for it."""

    def step(self, network: "Network", batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logarithm of each subword's share after the new ones, and what is kept of all tokens.

        Beside the inputs of rows the batch has `prefix_of` int64 [b, k], the place of each new token of a prefix among
        the tokens of all rows; `ids` and `places` int64 [b, t]; and `past` and `source`, as of `Kept`.
        Shapes: -> [b, t, v].
        """
        raise NotImplementedError

    def nats(self, network: "Network", batch: Mapping[str, Tensor], ids: Tensor, wanted: Tensor) -> Tensor:
        """Return the negative log-likelihood of each wanted subword of texts that are known whole.

        Shapes: ids int64 [b, t], what is read, from what begins a text on; wanted int64 [b, t], what comes next;
        returns [b, t].
        """
        raise NotImplementedError


class Decoder(TextDecoder):
    """A mixture of a softmax over the vocabulary and of the subwords of the row."""

    def __init__(self, sizes: Sizes, d_model: int, max_tokens: int, dropout: float) -> None:
        super().__init__()
        self.sizes = sizes
        self.positions = nn.Embedding(max_tokens, d_model)
        self.dropout = Dropout(dropout, of="rows")
        self.transform = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.LayerNorm(d_model))
        self.bias = nn.Parameter(torch.zeros(sizes.n_subwords))
        self.asking = nn.Linear(d_model, 2 * d_model)
        self.share = nn.Linear(d_model, 1)

    def prefix(self, network: "Network", batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the tokens of rows, and what may be copied from each. Shapes: [b, n, d], int64 [b, n]."""
        tokens = network.embeddings({name: batch[name] for name in encoder_inputs() if name in batch})
        sources, n_sequences = [], 0
        for kind in (kind for kind in sequence_kinds() if kind.input in batch):
            given = batch[kind.input]
            real = kind.real(given, self.sizes)
            own = given if kind is kind_class(TEXT) else torch.full_like(real, self.sizes.cls_id, dtype=torch.int64)
            sources.append(torch.where(real, own, self.sizes.pad_id))
            n_sequences += real.shape[1]
        columns = torch.full_like(tokens[:, : tokens.shape[1] - n_sequences, 0], self.sizes.cls_id, dtype=torch.int64)
        return tokens, torch.cat([columns, *sources], dim=1)

    def subwords(self, network: "Network", ids: Tensor, places: Tensor) -> Tensor:
        """Return the tokens of subwords of the text at their places. Shapes: int64 [b, t] twice -> [b, t, d]."""
        embeddings = network.embeddings
        return self.dropout(embeddings.LayerNorm(embeddings.word_embeddings(ids) + self.positions(places)))

    def forward(self, network: "Network", new: Tensor, kept: Kept, n_new: int) -> tuple[Tensor, Kept]:
        """Read new tokens, those of the prefix first, then n_new subwords of the text.

        Return the vectors of the latter, and what is kept of all tokens.
        Shapes: new [b, k + t, d], kept.past of p tokens and kept.source of p + k; returns [b, t, d].
        """
        n_before, n_all = kept.past.shape[4], kept.past.shape[4] + new.shape[1]
        text = torch.full_like(new[:, new.shape[1] - n_new :, 0], self.sizes.sep_id, dtype=torch.int64)
        source = torch.cat([kept.source, text], dim=1)
        place = torch.arange(n_all, device=new.device)
        read = (place < n_all - n_new) | (place <= place[n_before:, None])
        mask = (source != self.sizes.pad_id)[:, None, None] & read
        tokens, past = network.encoder.continued(new, mask, kept.past)
        return tokens[:, new.shape[1] - n_new :], Kept(past, source)

    def step(self, network: "Network", batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return shares, and what is kept."""
        tokens, source = self.prefix(network, batch)
        prefix_of, ids = batch["prefix_of"], batch["ids"]
        new = torch.cat([tokens.flatten(0, 1)[prefix_of], self.subwords(network, ids, batch["places"])], dim=1)
        kept = Kept(batch["past"], torch.cat([batch["source"], source.flatten()[prefix_of]], dim=1))
        vectors, kept = self(network, new, kept, ids.shape[1])
        return self.log_shares(network, vectors, kept), kept.past, kept.source

    def mixture(self, network: "Network", tokens: Tensor, kept: Kept) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the vocabulary, the weight of each token to copy from, and the logit of copying.

        Shapes: [b, t, d] -> [b, t, v], [b, t, p], [b, t, 1].
        """
        logits = self.transform(tokens) @ network.embeddings.word_embeddings.weight.T + self.bias
        keys = kept.past[-1, 0].transpose(1, 2).flatten(2)
        # With the one before it, by which a token says what it follows.
        keys = torch.cat([keys, nn.functional.pad(keys[:, :-1], (0, 0, 1, 0))], dim=-1)
        weights = self.asking(tokens) @ keys.transpose(1, 2) * keys.shape[-1] ** -0.5
        sizes, source = self.sizes, kept.source
        special = (sizes.cls_id, sizes.sep_id, sizes.pad_id, sizes.mask_id)
        can_be_copied = torch.stack([source != each for each in special]).all(0)[:, None]
        weights = (weights + torch.where(can_be_copied, 0.0, HIDDEN)).float().softmax(-1) * can_be_copied
        copies = torch.where(can_be_copied.any(-1, keepdim=True), self.share(tokens).float(), HIDDEN)
        return logits.float(), weights, copies

    def log_shares(self, network: "Network", tokens: Tensor, kept: Kept) -> Tensor:
        """Return the logarithm of the share of each subword as the next one. Shapes: [b, t, d] -> [b, t, v]."""
        logits, weights, copies = self.mixture(network, tokens, kept)
        source = kept.source[:, None].expand(weights.shape)
        copied = torch.zeros_like(logits).scatter_add(2, source, weights)
        return _mixed(logits.log_softmax(-1), copied, copies)

    def nats(self, network: "Network", batch: Mapping[str, Tensor], ids: Tensor, wanted: Tensor) -> Tensor:
        """Return the negative log-likelihood of each wanted subword."""
        tokens, kept = self.read(network, batch, ids)
        logits, weights, copies = self.mixture(network, tokens, kept)
        written = logits.gather(2, wanted[..., None]) - logits.logsumexp(-1, keepdim=True)
        copied = (weights * (kept.source[:, None] == wanted[..., None])).sum(-1, keepdim=True)
        return -_mixed(written, copied, copies).squeeze(2)

    def read(self, network: "Network", batch: Mapping[str, Tensor], ids: Tensor) -> tuple[Tensor, Kept]:
        """Read rows and beginnings of texts, from nothing. Shapes: int64 [b, t] -> [b, t, d]."""
        tokens, source = self.prefix(network, batch)
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        new = torch.cat([tokens, self.subwords(network, ids, places)], dim=1)
        past = new.new_zeros(network.past_shape(len(ids), 0))
        return self(network, new, Kept(past, source), ids.shape[1])


def _mixed(log_written: Tensor, copied: Tensor, copies: Tensor) -> Tensor:
    """Return the logarithm of the mixture of two shares; of rare subwords too it is precise. Shapes: unchanged."""
    log_copied = copied.clamp(min=LEAST_SHARE).log()
    log_sigmoid = nn.functional.logsigmoid
    return torch.logaddexp(log_sigmoid(-copies) + log_written, log_sigmoid(copies) + log_copied)
