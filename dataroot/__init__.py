"""A data set in nuScenes format, read and checked: tables, links, splits, points, images. Imports `models`, `storage`,
and `common`; the stages, the simulation and the evaluation read a dataroot through it."""
