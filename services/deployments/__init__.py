"""Application instances: what runs on which device, and how it fares."""
