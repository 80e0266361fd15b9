"""Logs of other datasets, in py123d's format, written as a dataroot."""
