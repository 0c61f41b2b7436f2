"""CloudWatch: metric data in, statistics out."""
