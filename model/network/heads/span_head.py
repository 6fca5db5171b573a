"""From the encoded windows of a row to a distribution over all stretches of its text, and no answer.

The logit of a stretch is that of its first subword as a beginning plus that of its last one as an end. One softmax goes
over the stretches of all windows of a row and "none", so that windows compete, and what is best in one of them is best.

Source: Devlin et al., "BERT" (2019), section 4.3; Clark and Gardner, "Simple and Effective Multi-Paragraph Reading
Comprehension" (2018), sections 3 and 4, for the shared softmax, the sum over all occurrences of an answer, and a logit
for none.

Shape legend: b rows, w windows, s subwords of a window, d width, k occurrences.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.features.answers.occurrences import NO_ANSWER
from model.features.answers.windows import FACTS
from model.features.encoded import Sizes
from model.features.kinds import TEXT, kind_class
from model.network.dropout import Dropout
from model.target import Target

if TYPE_CHECKING:
    from model.network.network import Network

IMPOSSIBLE = -1e30
"""The logit of what is no answer; finite, so that a row without any still has numbers."""
LEAST = 1e-30


class SpanHead(nn.Module):
    """Reads facts beside the subwords, and says where answers begin and end."""

    def __init__(self, sizes: Sizes, d_model: int, target: Target, dropout: float) -> None:
        super().__init__()
        self.sizes, self.longest = sizes, max(1, target.max_tokens)
        self.facts = nn.Linear(len(FACTS), d_model)
        self.dense, self.dropout = nn.Linear(d_model + len(FACTS), d_model), Dropout(dropout, of="rows")
        self.edges = nn.Linear(d_model, 2)
        self.none = nn.Linear(d_model, 1)

    def with_facts(self, tokens: Tensor, facts: Tensor) -> Tensor:
        """Return tokens, of which the last are subwords, with what is known of these. Shapes: [w, n, d], [w, s, f]."""
        added = self.facts(facts)
        return tokens + nn.functional.pad(added, (0, 0, tokens.shape[1] - added.shape[1], 0))

    def logits(self, network: "Network", batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits of all stretches by their first and last subword, and of none.

        Shapes: batch as of `Network.encode` -> float32 [w, s, s], [b].
        """
        text = batch[kind_class(TEXT).input]
        tokens, _ = network.encode(batch)
        subwords = torch.cat([tokens[:, -text.shape[1] :], batch["facts"].to(tokens.dtype)], -1)
        edges = self.edges(nn.functional.gelu(self.dense(self.dropout(subwords)))).float()
        may_be = self._may_be_answer(text)
        places = torch.arange(text.shape[1], device=text.device)
        length = places[None, :] - places[:, None]
        is_stretch = (length >= 0) & (length < self.longest)
        allowed = may_be[:, :, None] & may_be[:, None, :] & is_stretch
        stretches = edges[..., 0][:, :, None] + edges[..., 1][:, None, :]
        none = self.none(torch.tanh(tokens[:, 0])).float()[:, 0]
        if "windows" in batch:
            windows = batch["windows"].float()
            none = (windows @ none) / windows.sum(1)
        return torch.where(allowed, stretches, IMPOSSIBLE), none

    def answers(self, network: "Network", batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the numbers of the first and last subword of each row's likeliest answer, and two probabilities.

        That of this answer, and that there is one. A subword's number is its place in its window, and `max_tokens` more
        for each window of the row before that. Shapes: int64 [b, 2], float32 [b, 2].
        """
        stretches, none = self.logits(network, batch)
        best, end = stretches.max(2)
        best, start = best.max(1)
        end = end.gather(1, start[:, None])[:, 0]
        together = self._of_rows(stretches, batch)
        window = torch.arange(best.shape[0], device=best.device)
        ordinal = torch.zeros_like(start)
        if "windows" in batch:
            is_own = batch["windows"] > 0
            best, window = torch.where(is_own, best[None], 2 * IMPOSSIBLE).max(1)
            ordinal = window - is_own.long().argmax(1)
        total = torch.logaddexp(together, none)
        numbers = ordinal[:, None] * self.sizes.max_tokens + torch.stack([start, end], 1)[window]
        return numbers, torch.stack([best - total, together - total], 1).exp().clamp(max=1)

    def nats(self, network: "Network", batch: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """Return the negative log-probability of each row's answer, wherever in the text it stands.

        0 of an answer that is not read, or too long. Shapes: labels int64 [b, k, 3] as of `SpanLabels` -> [b].
        """
        stretches, none = self.logits(network, batch)
        total = torch.logaddexp(self._of_rows(stretches, batch), none)
        ordinal, start, end = labels.unbind(-1)
        n_rows = labels.shape[0]
        first = torch.arange(n_rows, device=labels.device)
        if "windows" in batch:
            ends = batch["windows"].sum(1).long().cumsum(0)
            first = nn.functional.pad(ends, (1, 0))[:-1]
        is_place = (ordinal >= 0) & (end - start < self.longest)
        window = (first[:, None] + ordinal).clamp(min=0, max=stretches.shape[0] - 1)
        logits = stretches[window, start.clamp(min=0), end.clamp(min=0)]
        share = torch.where(is_place, (logits - total[:, None]).exp(), 0.0).sum(1)
        is_none = (ordinal == NO_ANSWER).any(1)
        share = torch.where(is_none, (none - total).exp(), share)
        return torch.where(is_none | is_place.any(1), -share.clamp(min=LEAST).log(), 0.0)

    def _of_rows(self, stretches: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logarithm of the sum over all stretches of each row. Shapes: [w, s, s] -> [b]."""
        of_windows = stretches.flatten(1).logsumexp(1)
        if "windows" not in batch:
            return of_windows
        return torch.where(batch["windows"] > 0, of_windows[None], 2 * IMPOSSIBLE).logsumexp(1)

    def _may_be_answer(self, text: Tensor) -> Tensor:
        """Return which subwords are of the last text, in which the answer lies. Shapes: [w, s] -> bool [w, s]."""
        closes = (text == self.sizes.sep_id).long()
        n_before = closes.cumsum(1) - closes
        return (n_before == self.sizes.n_texts - 1) & (closes == 0) & (text != self.sizes.pad_id)
