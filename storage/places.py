"""Names of objects in an object root: an artifact's folder, and beside it who works on it."""


def place_of(stage: str, key: str) -> str:
    """The folder of an artifact in an object root."""
    return f"{stage}/{key[:16]}"


def lease_of(stage: str, key: str) -> str:
    """The lease of who has an artifact alone: makes it, finishes it or sends it."""
    return f"{stage}/.{key[:16]}.lease"


def parts_of(stage: str, key: str) -> str:
    """The folder of what several processes say of an artifact's parts, see storage/remote_parts.py."""
    return f"{stage}/.{key[:16]}.parts"
