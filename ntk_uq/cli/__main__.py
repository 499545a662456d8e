"""``python -m ntk_uq.cli``."""

import sys

from ntk_uq.cli.shell import main

if __name__ == "__main__":
    sys.exit(main())
