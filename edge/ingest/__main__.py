"""Starts it: `python -m edge.ingest --data DIR`."""

from belvedere.chassis.edge import run
from edge.ingest.service import main

if __name__ == "__main__":
    run("ingest", main)
