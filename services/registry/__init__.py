"""The fleet: provisioning, enrolment, leases, connection and software state, tags. One row a device."""
