import lightning as L
import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Small networks on many threads are slower than on one, above all beside other test processes."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded(monkeypatch):
    """Each test starts from the same seed and leaves none behind."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    L.seed_everything(0, verbose=False)
