"""A classifier that needs no training: measures of membrane staining and two small regressions."""
