"""One slide, step by step, in a worker."""
