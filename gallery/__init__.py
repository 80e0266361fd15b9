"""Artifacts to look at: what each holds of a sample, its health, and its pictures. The command line, the report, the
page and notebooks show what is read here.
"""
