"""Synthetic data sets, written where a test wants them."""

import contextlib
import zipfile

import numpy as np
import pytest

from auxlight.errors import InputError

LABELS = {"cifar10": ("labels", 10), "svhn": ("labels", 10), "cifar100": ("fine", 100)}


@pytest.fixture
def arrays():
    """Arrays of the mirror of a data set, every class in both splits; of "images", the user's own arrays."""

    def make(name):
        rng = np.random.default_rng(0)
        key, classes = LABELS.get(name, ("primary", 2))
        sizes = {"train": max(3 * classes, 40), "test": max(classes, 12)}
        made = {}
        for split, size in sizes.items():
            made[f"{split}_images"] = rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
            made[f"{split}_{key}"] = rng.permutation(np.arange(size) % classes)
        return made

    return make


@pytest.fixture
def write(arrays, tmp_path):
    """Write `name`.npz, some arrays replaced (None: left out); gives its folder."""

    def save(name, **changes):
        kept = {key: value for key, value in (arrays(name) | changes).items() if value is not None}
        np.savez(tmp_path / f"{name}.npz", **kept)
        return tmp_path

    return save


@pytest.fixture
def damage():
    """Flip a byte in the middle of one member of a zip file, so that its checksum fails."""

    def flip(path, member):
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo(member)
        content = bytearray(path.read_bytes())
        name_and_extra = content[info.header_offset + 26 : info.header_offset + 30]
        start = info.header_offset + 30 + sum(np.frombuffer(name_and_extra, "<u2").tolist())
        content[start + info.compress_size // 2] ^= 0x10
        path.write_bytes(content)

    return flip


@pytest.fixture
def refused():
    """Expect exactly one InputError, of one line, that holds all of `words`."""

    @contextlib.contextmanager
    def expect(*words):
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert caught.type is InputError
        assert "\n" not in message
        assert [word for word in words if word not in message] == [], message

    return expect


@pytest.fixture
def enlarge():
    """Bilinear enlargement of one grey image (H, W), pixel by pixel, with half-pixel centres."""

    def resize(grey, size):
        def taps(position, length):
            source = min(max((position + 0.5) * length / size - 0.5, 0), length - 1)
            low = int(source)
            return ((low, 1 - (source - low)), (min(low + 1, length - 1), source - low))

        out = np.zeros((size, size))
        for i, j in np.ndindex(size, size):
            for row, row_weight in taps(i, grey.shape[0]):
                for column, column_weight in taps(j, grey.shape[1]):
                    out[i, j] += row_weight * column_weight * grey[row, column]
        return out

    return resize
