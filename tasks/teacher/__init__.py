"""Stages `fit` and `teacher`: a LiDAR detector is trained or read, and its BEV features become `bev.zarr`."""
