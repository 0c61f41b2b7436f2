"""What a command says and stops with: one line that names what was wrong and what to do."""


class CliError(Exception):
    """The command cannot go on; its text is for the person at the keyboard."""
