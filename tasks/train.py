"""Fine-tune the pretrained weights on the labelled training rows, stopping early on the validation rows, or probe them.

With `train.refit` they are then fine-tuned anew on both; what the validation rows showed while unseen is kept.
Reads data/splits and data/models/<product>/pretrained, writes data/models/<product>/trained. The same seed on the same
machine gives the same bytes, also where a killed training was resumed from its checkpoint.
`torchrun --nproc-per-node N -m tasks.train <product>` trains on N GPUs, or in N processes; one of them writes.
"""

from datetime import date

from tasks import stage
from tasks.params import Product
from tasks.runtime.paths import Paths
from tasks.training.fine_tuning import fine_tune


def train(product: Product, as_of: date) -> str:
    """Write the trained model and the history of its losses. Raises UserError when training diverges."""
    return fine_tune(product, Paths(product.name)).summary


if __name__ == "__main__":
    stage.main(train)
