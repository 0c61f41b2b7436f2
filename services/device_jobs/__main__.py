"""`python -m services.device_jobs --data DIR`: this service alone."""

import sys

from services.__main__ import main

if __name__ == "__main__":
    sys.argv += ["--only", "device_jobs"]
    sys.exit(main())
