"""`python -m services.packages.models list|install|remove [FRAMEWORK …] [--data DIR]`: the environments of model import."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from services.packages.models.environments import REQUIREMENTS, Environments, InstallFailed, root


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="belvedere models", description=__doc__)
    parser.add_argument("action", choices=["list", "install", "remove"])
    parser.add_argument("framework", nargs="*", help=f"{', '.join(REQUIREMENTS)}; all of them where none is named")
    parser.add_argument("--data", type=Path, default=Path("data"), help="the cloud side's data folder")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.framework if name not in REQUIREMENTS]:
        parser.error(f"there is no environment {', '.join(unknown)}: choose of {', '.join(REQUIREMENTS)}")
    environments = Environments(root(arguments.data.absolute()))
    for framework in arguments.framework or REQUIREMENTS:
        environment = environments.named(framework)
        if arguments.action == "list":
            print(f"{framework:12}{'installed' if environment.installed else 'not installed'}")
        elif arguments.action == "remove":
            environment.remove()
            print(f"{framework}: removed")
        elif environment.installed:
            print(f"{framework}: is installed already")
        else:
            print(f"{framework}: installing {' '.join(REQUIREMENTS[framework])} …", flush=True)
            try:
                environment.install()
            except InstallFailed as error:
                print(error, file=sys.stderr)
                return 1
            print(f"{framework}: installed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
