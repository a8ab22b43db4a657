"""How long training takes, without what is done beside it."""

import time


class TrainingClock:
    """Wall time and processor time between `start` and `stop`, added up: a busy machine stretches the one alone.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of this process.
    """

    def __init__(self) -> None:
        self.seconds = self.cpu_seconds = 0.0
        self.start()

    def start(self) -> None:
        """What comes now counts, what came since the last stop does not."""
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Add what came since the last start."""
        self.seconds += time.perf_counter() - self._started[0]
        self.cpu_seconds += time.process_time() - self._started[1]
        self.start()
