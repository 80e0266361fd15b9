"""Names, splits and tables of a world's scenes, such that the devkit's own splits hold for them.

Ten scenes are those of nuScenes' mini splits; more take the first names of its train and val lists, four to one.
"""

from typing import NamedTuple

from dataroot.devkit_splits import devkit_splits

MINI_TRAIN = (
    "scene-0061",
    "scene-0553",
    "scene-0655",
    "scene-0757",
    "scene-0796",
    "scene-1077",
    "scene-1094",
    "scene-1100",
)
MINI_VAL = ("scene-0103", "scene-0916")
MINI = len(MINI_TRAIN) + len(MINI_VAL)
MOST = 750  # of the devkit's train and val lists: 700 and 150


class Scenes(NamedTuple):
    """The scenes of a world by split, and the folder of tables whose splits those are."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    version: str

    @property
    def names(self) -> tuple[str, ...]:
        """All of them; a scene's place here is its number."""
        return self.train + self.val


def scenes_of(count: int) -> Scenes:
    """The scenes of a world of `count` scenes."""
    if count == MINI:
        return Scenes(MINI_TRAIN, MINI_VAL, "v1.0-mini")
    val, scenes = count // 5, devkit_splits()
    return Scenes(tuple(scenes["train"][: count - val]), tuple(scenes["val"][:val]), "v1.0-trainval")
