"""The `belvedere` command. Starts the two sides as child processes; imports neither."""
