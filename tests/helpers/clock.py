"""A clock for tests of what waits or measures time: it costs none, and depends on no load."""


class Clock:
    """Stands for the module `time`: time passes while somebody sleeps, or when `now` is moved."""

    def __init__(self) -> None:
        self.now = 1e9

    def time(self) -> float:
        return self.now

    monotonic = time

    def sleep(self, seconds: float) -> None:
        self.now += seconds
