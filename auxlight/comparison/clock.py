"""How long training takes, without what is done beside it."""

import time


class TrainingClock:
    """Wall time and processor time between `start` and `stop`, added up: a busy machine stretches the one alone.

    Attributes:
        spent: ``seconds`` of wall time, and ``cpu_seconds`` of this process on the processor.
    """

    def __init__(self) -> None:
        self.spent = {"seconds": 0.0, "cpu_seconds": 0.0}
        self.start()

    def start(self) -> None:
        """What comes now counts, what came since the last stop does not."""
        self._started = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Add what came since the last start."""
        self.spent["seconds"] += time.perf_counter() - self._started[0]
        self.spent["cpu_seconds"] += time.process_time() - self._started[1]
        self.start()
