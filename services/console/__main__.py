"""`python -m services.console --data DIR`: this service alone."""

import sys

from services.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["--only", "console", *sys.argv[1:]]))
