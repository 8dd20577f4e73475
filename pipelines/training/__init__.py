"""Classifiers fitted, from data sets to bundles."""
