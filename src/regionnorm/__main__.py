"""``python -m regionnorm``."""

import sys

from regionnorm.cli import main

if __name__ == "__main__":
    sys.exit(main())
