"""Artifacts and what is in them: keys, manifests, locks, Zarr stores. Knows no torch; imports `common` alone."""
