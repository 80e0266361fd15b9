"""The configs of public networks, turned into this project's own settings: strictly, so that nothing is narrowed."""
