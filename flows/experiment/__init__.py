"""`geomim experiment gain`: many runs of the pipeline, each found in the cache or run, then compared."""
