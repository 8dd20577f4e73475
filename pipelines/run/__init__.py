"""A folder of slides scored: its tables, its progress."""
