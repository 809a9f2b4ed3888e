"""What ends a command with status 1 and a message."""

import errno


class RunError(RuntimeError):
    """Neither the user's input nor a defect: a disk that stays full, numbers that stay bad.
    Says what happened, what is safe, and what to do."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # of an OSError that is no defect either
