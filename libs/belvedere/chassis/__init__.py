"""What every service and every edge process is: settings, logs, errors, start, stop, database, outbox, gRPC server.

Must not know any service or edge process. Each module opens with an example; import from the modules themselves
(`from belvedere.chassis.errors import NotFound`): this file stays empty so that importing one part loads no other.
"""
