"""Keep the scores of validation rows from before anything learnt from them, for thresholds that are chosen later."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.params import Product
from tasks.rows import model_inputs
from tasks.rows.model_inputs import SplitPart

if TYPE_CHECKING:
    from model.features.encoded import Encoded
    from model.network.network import Network
    from model.target import Target

MAX_ROWS, BATCH_TOKENS = 200_000, 4096


class Unseen:
    """The scores of validation rows, from before anything learnt from them, on which thresholds can be chosen."""

    def __init__(self, target: "Target", rows: SplitPart, y: np.ndarray) -> None:
        """Begin with nothing kept of the rows, whose labels are `y`."""
        self.target, self.rows, self.y = target, rows, y
        self.scores: np.ndarray | None = None
        self.labels = np.empty(0)

    def keep(self, network: "Network", encoded: "Encoded") -> None:
        """Score the rows, or of very many a sample, where predictions are made from a threshold on."""
        from model.features.fitting import chosen_rows
        from model.training.inference import predict_in_batches

        if self.target.head.has_threshold:
            chosen = chosen_rows(len(encoded), MAX_ROWS)
            self.scores = predict_in_batches(network, network.scores, encoded, BATCH_TOKENS, chosen).numpy()
            self.labels = self.y[chosen]

    def keep_answers(self, product: Product, network: "Network", encoded: "Encoded") -> None:
        """Keep what is measured of answers in texts; the rows said when to stop, and nothing was learnt from them."""
        from model.features.answers.windows import characters
        from model.training.inference import predict_in_batches

        found = predict_in_batches(network, network.scores, encoded, BATCH_TOKENS).numpy()
        found[..., 0] = characters(found[..., 0], encoded.arrays, network.sizes.max_tokens)
        texts = {product.target.text: np.concatenate([table[product.target.text] for table in self.rows])}
        self.scores = model_inputs.metric_scores(product, self.y, texts, found)
        self.labels = self.scores[:, -1]

    def save(self, folder: Path) -> None:
        """Write them beside the trained network."""
        from model.network.store import save_validation

        if self.scores is not None:
            save_validation(folder, self.scores, self.labels)
