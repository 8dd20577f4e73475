"""What people and other programs look at: heatmap, tables, GeoJSON, the slide report, the page of a run."""
