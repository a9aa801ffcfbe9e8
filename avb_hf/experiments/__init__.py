"""The paper as a grid of runs: planned, carried out, and laid beside the published numbers."""
