"""A simulated town and drive, written as a data set in nuScenes format. No stage: imports no `tasks`."""
