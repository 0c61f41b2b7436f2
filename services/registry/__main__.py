"""`python -m services.registry --data DIR`: this service alone."""

import sys

from services.__main__ import main

if __name__ == "__main__":
    sys.argv += ["--only", "registry"]
    sys.exit(main())
