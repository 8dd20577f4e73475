"""Hostile input: files that were damaged or made to harm, through what a user would run.

It lies beside the tests because what it finds becomes one (`test_found.py`); it is no test itself, because it
takes minutes and what it looks at depends on a seed. `python -m tests.fuzz 2000 --seed 1`, or `make fuzz`.
"""
