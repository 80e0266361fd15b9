"""The command line and the Prefect flows: the one room that knows Prefect. Nothing imports it."""

import os

# No plugin of pydantic's is meant for us, and looking for some takes a command a tenth of its start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
