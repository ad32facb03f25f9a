"""Studies: a question each, asked of dictionaries on this machine and answered in a report."""
