"""Fit vocabularies, scales and bins on the training rows, and make the weights that training starts from.

`init: pretrain` learns by masked modelling from every row that `split` reads, labelled or not, except the held-out
ones: by time those of the split's days and newer ones, by hash all up to as_of. Vocabularies, scales and bins are then
fitted on all of these. `init: scratch` starts from random
weights, `package:<package>/<folder>` and `dir:<path>` from BERT-family weights. The result lies in
data/models/<product>/pretrained. A killed pretraining is resumed from its checkpoint; torchrun spreads it over
processes as it does `tasks.train`.
"""

from datetime import date

from tasks import stage
from tasks.params import Product
from tasks.runtime.paths import Paths
from tasks.training import pretraining


def pretrain(product: Product, as_of: date) -> str:
    """Write the weights that training starts from, and the history of their losses.

    Raises UserError where the weights named by `init` are absent or do not fit, and when training diverges.
    """
    return pretraining.pretrain(product, Paths(product.name)).summary


if __name__ == "__main__":
    stage.main(pretrain)
