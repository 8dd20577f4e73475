"""Opening slides, microns per pixel, tissue, stain, patch grid, patch store."""
