"""Where rows come from: `fetch` delivers those of a product by the reader of its source's kind.

`formats` has a module for each format of files (CSV, Parquet, JSON Lines), `sql` reads queries, `address` finds and
hides addresses, `flights` and `news` are the demonstrations' sources in Python.

The contract of a source in Python, `source: {kind: python, callable: "tasks.sources.<module>:rows"}`:
`rows(start, end)` returns a pandas DataFrame of every row whose event date lies between the two dates, inclusive;
`start` may be None for "from the beginning". The frame holds the declared key, time, columns and target, the target
empty where the label is not known yet. The same dates give the same rows, and nothing in a row was learned after the
row is scored: `tasks.ingest` takes care of the target. Where the product has no `time`, `start` is always None.
"""
