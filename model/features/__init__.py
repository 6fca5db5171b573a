"""Tables to arrays to batches: what is fitted of columns, text as subwords, and in `kinds` one file per column kind."""
