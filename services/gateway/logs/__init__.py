"""CloudWatch Logs: groups, streams, events."""
