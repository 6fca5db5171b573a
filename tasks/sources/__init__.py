"""Sources written in Python, for `source: {kind: python, callable: "tasks.sources.<module>:rows"}`.

The contract: `rows(start, end)` returns a pandas DataFrame of every row whose event date lies between the
two dates, inclusive; `start` may be None for "from the beginning". The frame holds the declared key, time,
columns and target, the target empty where the label is not known yet. The same dates give the same rows,
and nothing in a row was learned after the row is scored: `tasks.ingest` takes care of the target. Where the
product has no `time`, `start` is always None.
"""
