"""What came out of a run, in the few lines that a person wants to read."""

import json

from tasks.params import Product
from tasks.publish import MANIFEST, night_key
from tasks.read import read_manifest
from tasks.registry import champion
from tasks.store import Store
from tasks.workspace import Run, committed


def summary(product: Product, as_of: str) -> str:
    """The metric with the baseline's, the experiments, the rows, the manifest, and a line that reads the night."""
    manifest, leader, metric = read_manifest(product.publish.url, product.name, as_of), champion(product.name), product.gates.metric
    assert leader is not None, "a published night has a champion"
    return manifest["run"]
