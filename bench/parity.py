"""This project's code against stored outputs of the original: `tests/parity/conformance.py` as a command.

python bench/parity.py DIR [FILE-GLOB or KIND ...] [--autocast bf16] [--json]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this clone, whichever is installed
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))

from conformance import main

if __name__ == "__main__":
    sys.exit(main())
