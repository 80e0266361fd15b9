"""Stage `ingest`: a checked dataroot becomes `index.zarr`."""
