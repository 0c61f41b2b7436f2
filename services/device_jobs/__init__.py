"""Device jobs: reboots and software updates of appliances."""
