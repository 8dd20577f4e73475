"""HER2 scoring of whole-slide images: slides, classifiers, calls and reports."""
