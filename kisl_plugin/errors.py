"""The errors a user can meet: one line that names the file, the key or row, the value seen and what to do."""


class KislError(Exception):
    """A failure that is reported in one line; the command ends with `exit_status`."""

    exit_status = 1


class InputError(KislError, ValueError):
    """A wrong call or a bad input: the user can mend it."""

    exit_status = 2
