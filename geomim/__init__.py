"""geomim in a notebook or a script: artifacts opened to read.

    import geomim

    root = geomim.open("artifacts")  # what is there
    teacher = root["teacher"][0]  # or geomim.open("artifacts/teacher/0123456789abcdef")
    teacher.summary, teacher.config, teacher.health
    sample = teacher[12]  # its boxes, points, maps and predictions as arrays; a picture where it is shown
    sample.bev.shape, sample.boxes.centers

Nothing is read before it is asked for. docs/python.md has more.
"""

from gallery.handles import ArtifactView, RootView, SampleView, open

__all__ = ["ArtifactView", "RootView", "SampleView", "open"]
