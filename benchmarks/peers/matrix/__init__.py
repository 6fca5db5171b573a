"""The peers of benchmarks/matrix, a module for each kind of product, under the Python of matrix.txt.

PEERS of a module names classes that are fitted by `Peer(data)` and have `score(rows)`, which returns what the product's
metric reads: of a yes or no its probability, of classes and items a score of each in the order of `data.classes`.
"""
