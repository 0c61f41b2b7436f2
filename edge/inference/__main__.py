"""Starts it: `python -m edge.inference --data DIR`."""

from belvedere.chassis.edge import run
from edge.inference.service import main

if __name__ == "__main__":
    run("inference", main)
