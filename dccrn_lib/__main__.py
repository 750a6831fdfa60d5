"""``python -m dccrn_lib COMMAND``."""

from __future__ import annotations

import sys

from dccrn_lib.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
