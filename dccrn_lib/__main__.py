"""``python -m dccrn_lib COMMAND``."""

from __future__ import annotations

import os
import sys

from dccrn_lib.cli.main import main

if __name__ == "__main__":
    # torchrun sets RANK: only the first process speaks
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")
    sys.exit(main())
