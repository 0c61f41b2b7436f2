"""The web console: the live page and the JSON behind it."""
