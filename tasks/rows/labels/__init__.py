"""Labels of rows: which are known, of which day they are, and on which days the parts of a split end."""
