"""Runs the appliance's applications, each in a sandbox: start, watch, restart, stop. Knows nothing of cameras, models
or the cloud."""
