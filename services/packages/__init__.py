"""Node packages: what can be deployed. Also the index over stored objects (S3's keys), and cameras with their secrets."""
