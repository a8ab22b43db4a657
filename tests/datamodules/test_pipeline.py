import numpy as np
import pytest
import torch

from auxlight.batch import Batch
from auxlight.datamodules.images import RawBatch
from auxlight.datamodules.pipeline import ImagePipeline, random_crop, random_flip

HEIGHT, WIDTH = 6, 5


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(1, 256, (count, 3, HEIGHT, WIDTH), dtype=np.uint8)


def raw(image, seed):
    label = torch.arange(len(image))
    return RawBatch(torch.as_tensor(image), label, label + 100, label + 200, seed)


def cropped(image, padding, top, left):
    """One image (C, H, W), pixel by pixel."""
    out = np.zeros_like(image)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            row, column = y + top - padding, x + left - padding
            if 0 <= row < HEIGHT and 0 <= column < WIDTH:
                out[:, y, x] = image[:, row, column]
    return out


def mirrored(image):
    out = np.zeros_like(image)
    for x in range(WIDTH):
        out[:, :, x] = image[:, :, WIDTH - 1 - x]
    return out


def as_uint8(batch):
    """Images of a pipeline with mean 0 and standard deviation 1 as they were."""
    return (batch.image * 255).round().to(torch.uint8).numpy()


def draws(images, outputs, padding):
    """(top, left, flipped) of each output, found by trying all of them."""
    found = []
    for image, output in zip(images, outputs, strict=True):
        offsets = np.ndindex(2 * padding + 1, 2 * padding + 1)
        windows = {offset: cropped(image, padding, *offset) for offset in offsets}
        fits = [(*at, False) for at, window in windows.items() if np.array_equal(window, output)]
        fits += [(*at, True) for at, window in windows.items() if np.array_equal(mirrored(window), output)]
        assert len(fits) == 1
        found += fits
    return found


@pytest.mark.parametrize("padding", [1, 2, 7])
def test_crop_is_a_window_of_the_padded_image(padding):
    offsets = list(np.ndindex(2 * padding + 1, 2 * padding + 1))
    images = noise(len(offsets))
    out = random_crop(torch.from_numpy(images), padding, torch.tensor(offsets)).numpy()
    for image, output, (top, left) in zip(images, out, offsets, strict=True):
        np.testing.assert_array_equal(output, cropped(image, padding, top, left))


def test_flip_mirrors_the_chosen_images_left_to_right():
    images, chosen = noise(5), [True, False, False, True, True]
    out = random_flip(torch.from_numpy(images), torch.tensor(chosen)).numpy()
    for image, output, flip in zip(images, out, chosen, strict=True):
        np.testing.assert_array_equal(output, mirrored(image) if flip else image)


def test_every_image_has_a_crop_and_a_flip_of_its_own():
    images = noise(400)
    output = as_uint8(ImagePipeline((0.0,) * 3, (1.0,) * 3, 1, True)(raw(images, 5)))
    found = draws(images, output, 1)
    for top, left in np.ndindex(3, 3):
        for flip in (False, True):  # 18 equally likely draws: 22 ± 4.6 of each
            assert 5 <= found.count((top, left, flip)) <= 45
    flips = [flip for *_, flip in found]
    assert 150 < sum(flips) < 250


@pytest.mark.parametrize(("padding", "flip"), [(2, False), (0, True), (0, False)])
def test_what_is_switched_off_is_not_done(padding, flip):
    images = noise(40)
    found = draws(images, as_uint8(ImagePipeline((0.0,) * 3, (1.0,) * 3, padding, flip)(raw(images, 5))), padding)
    assert (len({(top, left) for top, left, _ in found}) > 1) == (padding > 0)
    assert any(flipped for *_, flipped in found) == flip


def test_draws_depend_on_the_seed_of_the_batch_alone():
    pipeline, images = ImagePipeline((0.0,) * 3, (1.0,) * 3, 2, True), noise(20)
    torch.manual_seed(0)
    first = pipeline(raw(images, 5)).image
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(pipeline(raw(images, 5)).image, first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(pipeline(raw(images, 6)).image, first)


def test_draws_do_not_depend_on_what_the_images_show():
    pipeline = ImagePipeline((0.0,) * 3, (1.0,) * 3, 2, True)
    one, other = noise(20, seed=0), noise(20, seed=1)
    assert draws(one, as_uint8(pipeline(raw(one, 5))), 2) == draws(other, as_uint8(pipeline(raw(other, 5))), 2)


def test_without_a_seed_the_images_are_only_normalised():
    images = noise(7)
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    image = ImagePipeline(mean, std, 2, True)(raw(images, None)).image
    assert image.dtype == torch.float32
    for n, c, y, x in np.ndindex(images.shape):
        expected = (float(images[n, c, y, x]) / 255 - mean[c]) / std[c]
        assert float(image[n, c, y, x]) == pytest.approx(expected, abs=2e-6)


def test_padding_is_black_before_normalisation():
    image = np.full((1, 3, HEIGHT, WIDTH), 255, np.uint8)
    pipeline = ImagePipeline((0.5,) * 3, (0.25,) * 3, 9, False)
    values = {round(float(v), 4) for seed in range(20) for v in pipeline(raw(image, seed)).image.unique()}
    assert values == {-2.0, 2.0}


def test_the_memory_layout_changes_no_value():
    images = torch.from_numpy(noise(8))
    pipeline = ImagePipeline((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 2, True)
    plain = pipeline(raw(images, 3)).image
    strided = pipeline(raw(images.contiguous(memory_format=torch.channels_last), 3)).image
    assert plain.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, strided)
    assert torch.equal(plain.contiguous(), plain)


def test_labels_pass_and_the_images_in_memory_stay():
    images = torch.from_numpy(noise(8))
    before, batch = images.clone(), raw(images, 3)
    out = ImagePipeline((0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 2, True)(batch)
    assert isinstance(out, Batch)
    assert out.primary is batch.primary and out.auxiliary is batch.auxiliary and out.index is batch.index
    assert torch.equal(images, before)
