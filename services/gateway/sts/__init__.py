"""STS: who am I, and temporary credentials for a role."""
