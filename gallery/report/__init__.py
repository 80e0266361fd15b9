"""One page on a whole run: scores, curves, pictures, data and settings, in a single file that can be mailed."""
