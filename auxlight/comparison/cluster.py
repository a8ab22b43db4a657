"""Runs of a comparison on a Ray cluster, each one a task."""

import importlib
import os
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any

from auxlight.comparison import process
from auxlight.comparison.runner import call
from auxlight.comparison.spec import Run
from auxlight.errors import InputError

OBJECT_STORE = 10**8  # bytes of memory; runs exchange files
GRACE = 10.0  # seconds in which tasks end that are cancelled


class RayCluster(AbstractContextManager["RayCluster"]):
    """Workers of a Ray cluster, which see the comparison's folder and its configs under the same paths as this machine.

    Args:
        address: "local" starts a cluster on this machine, which ends with the comparison; "auto" finds the one that
            this machine is part of; else that of a cluster's head, such as ``10.0.0.1:6379``.
        cpus_per_run: cores, and threads, of each run.
        gpus_per_run: GPUs of each run; runs share one below 1, and see none at 0.
        jobs: runs at once on a local cluster; by default as many as this machine's cores and GPUs allow.

    Raises:
        InputError: no ray, too small a share, or jobs for a cluster that is not local.
    """

    def __init__(
        self, address: str = "local", cpus_per_run: int = 1, gpus_per_run: float = 0.0, jobs: int | None = None
    ) -> None:
        if cpus_per_run < 1:
            raise InputError(f"`cpus_per_run` must be at least 1. Found cpus_per_run={cpus_per_run}.")
        if gpus_per_run < 0 or (gpus_per_run > 1 and gpus_per_run % 1):
            raise InputError(
                f"`gpus_per_run` must be a share of a GPU or whole ones. Found gpus_per_run={gpus_per_run}."
            )
        if jobs is not None and jobs < 1:
            raise InputError(f"`jobs` must be at least 1. Found jobs={jobs}.")
        if jobs is not None and address != "local":
            raise InputError(
                "`jobs` must be left out for a cluster that is there already: it takes as many runs as fit. "
                f"Found jobs={jobs} and ray={address!r}."
            )
        try:
            self._ray: Any = importlib.import_module("ray")
        except ModuleNotFoundError:
            raise InputError(
                "`ray` must be installed for runs on a Ray cluster. Found none: pip install 'auxlight[ray]'."
            ) from None
        self.address, self.cpus_per_run, self.gpus_per_run, self.jobs = address, cpus_per_run, gpus_per_run, jobs
        self.slots = 0
        self._tasks: list[Any] = []

    def __enter__(self) -> "RayCluster":
        """Start or find the cluster.

        Raises:
            InputError: no cluster at the address, or a machine that a run does not fit on.
        """
        self._connect()
        self.slots = sum(self._fit_on(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        if self.slots < 1 and self.address == "local":
            self._ray.shutdown()
            raise InputError(
                "`cpus_per_run` and `gpus_per_run` must fit on this machine. "
                f"Found cpus_per_run={self.cpus_per_run}, gpus_per_run={self.gpus_per_run}."
            )
        self.slots = max(1, self.slots)  # a cluster that grows may be empty yet
        # By value: else a worker would import auxlight, and torch, only to start a process that does so again.
        self._ray.cloudpickle.register_pickle_by_value(process)
        self._fit = self._ray.remote(num_cpus=self.cpus_per_run, num_gpus=self.gpus_per_run)(process.fit)
        return self

    def _connect(self) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if self.address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            cpus = None if self.jobs is None else self.jobs * self.cpus_per_run
            own = {"num_cpus": cpus, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
            self._ray.init("local", **own, **quiet)
            return
        try:
            self._ray.init(self.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"`ray` must be local, auto, or the address of a cluster. Found ray={self.address!r}: {error}"
            ) from None

    def _fit_on(self, resources: dict[str, float]) -> int:
        """Runs at once on a node."""
        fits = resources.get("CPU", 0.0) / self.cpus_per_run
        if self.gpus_per_run:
            fits = min(fits, resources.get("GPU", 0.0) / self.gpus_per_run)
        return int(fits + 1e-6)  # ten tenths are a whole

    def submit(self, run: Run) -> Future[bool]:
        """Execute a run as soon as there is a slot."""
        # Whether Ray itself hides GPUs from a task that asked for none depends on its version.
        task = self._fit.remote(*call(run), self.cpus_per_run, not self.gpus_per_run)
        self._tasks.append(task)
        future: Future[bool] = task.future()
        return future

    def __exit__(self, *_: object) -> None:
        """End what still runs, and leave or stop the cluster."""
        for task in self._tasks:
            self._ray.cancel(task)  # which does nothing to one that has ended
        self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=GRACE)
        self._tasks = []
        self._ray.shutdown()
