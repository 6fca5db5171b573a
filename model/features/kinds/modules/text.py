"""Tokens of texts: subwords with their positions. The names are BERT's.

Shape legend: b rows, s subwords, d width.
"""

import torch
from torch import Tensor, nn

from model.features.encoded import Sizes
from model.features.kinds.modules.columns import Reconstruction, normalised_cross_entropy

N_TOKEN_TYPES = 2


class SubwordEmbedding(nn.Module):
    """The vocabulary, positions and token types; [CLS] is of the vocabulary, so every row reads it."""

    def __init__(self, sizes: Sizes, d_model: int) -> None:
        super().__init__()
        self.sizes = sizes
        self.word_embeddings = nn.Embedding(sizes.n_subwords, d_model)
        self.position_embeddings = nn.Embedding(sizes.max_tokens + 1 if sizes.n_texts else 1, d_model)
        self.token_type_embeddings = nn.Embedding(N_TOKEN_TYPES, d_model)

    def cls(self) -> Tensor:
        """Return the token of [CLS]. Shapes: [d]."""
        cls = self.word_embeddings.weight[self.sizes.cls_id]
        return cls + self.position_embeddings.weight[0] + self.token_type_embeddings.weight[0]

    def subwords(self, text: Tensor) -> Tensor:
        """Return subwords with their position after [CLS] and their text column as token type.

        Shapes: int64 [b, s] -> [b, s, d].
        """
        positions = torch.arange(1, text.shape[1] + 1, device=text.device)
        tokens = self.word_embeddings(text) + self.position_embeddings(positions)
        if self.sizes.n_texts == 1:
            return tokens + self.token_type_embeddings.weight[0]
        closed = (text == self.sizes.sep_id).long()
        column = (closed.cumsum(1) - closed).clamp(max=N_TOKEN_TYPES - 1)
        return tokens + self.token_type_embeddings(column)


class SubwordReconstruction(Reconstruction):
    """Guesses a subword by the vectors of the vocabulary.

    Source: Devlin et al., "BERT" (2019), section 3.1.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.transform = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.LayerNorm(d_model))

    def losses(self, tokens: Tensor, values: Tensor, hidden: Tensor, embeddings: nn.Module) -> list[Tensor]:
        """Return one loss for all subwords."""
        assert isinstance(embeddings, SubwordEmbedding)
        logits = self.transform(tokens[hidden]) @ embeddings.word_embeddings.weight.T
        return [normalised_cross_entropy(logits, values[hidden])]


def hide_subwords(text: Tensor, sizes: Sizes, fraction: float) -> tuple[Tensor, Tensor]:
    """Return which subwords are hidden, and the text that is seen.

    Of the hidden subwords 80 % read [MASK], 10 % any other subword, 10 % stay.
    Shapes: int64 [b, s] -> bool [b, s], int64 [b, s].
    """
    device = text.device
    chosen = (torch.rand(text.shape) < fraction).to(device) & (text != sizes.pad_id) & (text != sizes.sep_id)
    fate = torch.rand(text.shape).to(device)
    random = torch.randint(sizes.n_subwords, text.shape).to(device)
    seen = torch.where(chosen & (fate < 0.8), sizes.mask_id, text)
    seen = torch.where(chosen & (fate >= 0.9), random, seen)
    # A random [PAD] would be taken for padding.
    return chosen, torch.where(chosen & (seen == sizes.pad_id), sizes.mask_id, seen)
