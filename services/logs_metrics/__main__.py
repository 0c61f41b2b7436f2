"""`python -m services.logs_metrics --data DIR`: this service alone."""

import sys

from services.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["--only", "logs_metrics", *sys.argv[1:]]))
