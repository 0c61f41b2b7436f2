"""The appliance's agent: holds the target state, plans, drives the other edge processes, reports."""
