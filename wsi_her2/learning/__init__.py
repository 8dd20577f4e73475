"""Fitting classifiers."""
