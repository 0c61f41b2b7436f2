"""Log groups and streams, log events, metrics: written by appliances and applications, read by users and the
console."""
