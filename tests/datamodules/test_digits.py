import numpy as np
import pytest
from sklearn.datasets import load_digits

from auxlight import DigitsDataModule


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.mark.parametrize(("train", "part"), [(True, slice(0, 1437)), (False, slice(1437, 1797))])
def test_the_digit_is_the_sub_label_of_its_parity(train, part, digits):
    data = DigitsDataModule()
    images = data.load_split(train).check(data.hierarchy, "these")
    # 0 2 4 6 8 | 1 3 5 7 9
    block_order = [0, 5, 1, 6, 2, 7, 3, 8, 4, 9]
    assert data.hierarchy.psi == (5, 5)
    assert images.primary.tolist() == [digit % 2 for digit in digits.target[part]]
    assert images.auxiliary.tolist() == [block_order[digit] for digit in digits.target[part]]


@pytest.mark.parametrize(("train", "first"), [(True, 0), (False, 1437)])
def test_images_are_the_digits_enlarged(train, first, digits, enlarge):
    image = DigitsDataModule().load_split(train).image
    assert image.shape[1:] == (3, 32, 32)
    for position in (0, 1, 200):
        expected = enlarge(digits.images[first + position] * 255 / 16, 32)
        for channel in image[position].numpy():
            # Rounded to whole grey levels, where halves may go either way.
            np.testing.assert_allclose(channel, expected, atol=0.5 + 1e-6)


def test_no_folder_is_read_or_made(tmp_path):
    data = DigitsDataModule(tmp_path / "nowhere", download=True)
    data.prepare_data()
    data.setup()
    assert not (tmp_path / "nowhere").exists()
    assert data.image_shape == (3, 32, 32)


def test_by_default_nothing_is_mirrored():
    assert DigitsDataModule().pipeline.flip is False
