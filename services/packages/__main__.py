"""`python -m services.packages --data DIR`: this service alone."""

import sys

from services.__main__ import main

if __name__ == "__main__":
    sys.argv += ["--only", "packages"]
    sys.exit(main())
