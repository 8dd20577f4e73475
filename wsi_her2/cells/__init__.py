"""Cells one by one: nuclei, the membrane around each, its completeness and class, and what they add up to."""
