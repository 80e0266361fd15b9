"""Scores and pictures of predictions: matching, the nuScenes metrics, IoU of maps and voxels, tables. No stage: it is
handed boxes and an index, and imports no `tasks`."""
