"""The error that ends a command with status 1 and a message."""

import errno


class RunError(RuntimeError):
    """A run cannot continue, by neither the user's input nor a bug: the disk is full, or updates
    stay non-finite. The message says what happened, what is safe and what to do."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # errno of an OSError that is no bug either
