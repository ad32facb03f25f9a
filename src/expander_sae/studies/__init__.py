"""Studies: each is a folder here, asks one question, and answers it with a report."""
