"""Figures of the whole path, as ratios within one run.  Nothing here asserts a time."""
