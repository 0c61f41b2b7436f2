"""`python -m edge.display --data DIR`"""

from belvedere.chassis.edge import run

from .service import main

if __name__ == "__main__":
    run("display", main)
