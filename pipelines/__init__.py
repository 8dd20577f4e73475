"""Orchestration of `wsi_her2`: Dask, the study, the command line."""
