"""`python -m edge.supervisor --data DIR`"""

from belvedere.chassis.edge import run
from edge.supervisor.service import main

if __name__ == "__main__":
    run("supervisor", main)
