"""Numbers and figures from arrays of runs; trains nothing and loads no weights."""
