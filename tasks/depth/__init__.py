"""Stage `depth`: LiDAR points projected into the cameras become `depth.zarr`."""
