"""What came out of a run, in the few lines that a person wants to read."""

import json

import yaml

from tasks.params import Product
from tasks.publish import MANIFEST, night_key
from tasks.promote import CHAMPION
from tasks.read import read_manifest
from tasks.registry import champion
from tasks.store import Store
from tasks.workspace import ORIGIN, git


def summary(product: Product, as_of: str) -> str:
    """The metric with the baseline's, the experiment, the rows, the manifest, and a line that reads the night."""
    manifest = read_manifest(product.publish.url, product.name, as_of)
    store, rows, metric = Store(product.publish.url), manifest["rows"], product.gates.metric
    return metric
