import gc
import os
import pickle
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch

from auxlight.datamodules.images import (
    BatchDataset,
    Draw,
    ImageSet,
    check_range,
    npz_keys,
    read_npz,
    to_image_tensor,
    to_label_tensor,
)
from auxlight.hierarchy import LabelHierarchy


class Bomb:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def noise(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


# --- arrays to tensors


def test_colour_images_move_their_channels_to_the_front():
    array = noise(4, 5, 6, 3)
    image = to_image_tensor(array, "x")
    assert image.shape == (4, 3, 5, 6) and image.dtype == torch.uint8
    for n, c, h, w in np.ndindex(4, 3, 5, 6):
        assert image[n, c, h, w] == array[n, h, w, c]


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 6, 1)])
def test_grey_images_become_three_equal_channels(shape):
    array = noise(*shape)
    image = to_image_tensor(array, "x").numpy()
    assert image.shape == (4, 3, 5, 6)
    for c in range(3):
        np.testing.assert_array_equal(image[:, c], array.reshape(4, 5, 6))


def test_the_tensor_is_a_copy_that_survives_a_change_of_channel():
    image = to_image_tensor(noise(2, 4, 4), "x")
    image[:, 0] = 0
    assert image[:, 1].any()  # expanded channels would share memory


def test_a_transposed_view_of_an_array_is_read_in_its_logical_order():
    array = noise(4, 3, 5, 6)
    np.testing.assert_array_equal(to_image_tensor(array.transpose(0, 2, 3, 1), "x").numpy(), array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 8, 8, 3), np.float32),
        np.zeros((4, 8, 8, 3), np.int64),
        np.zeros((4, 8, 8, 3), bool),
        np.zeros((4, 3, 8, 8), np.uint8),
        np.zeros((4, 8, 8, 4), np.uint8),
        np.zeros((4, 192), np.uint8),
        np.zeros((1, 4, 8, 8, 3), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_images_of_another_kind_are_refused(array, refused):
    with refused("`train_images`", "uint8", str(array.dtype), str(array.shape)):
        to_image_tensor(array, "train_images")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int32, np.uint64])
def test_labels_of_any_integer_type_become_int64(dtype):
    label = to_label_tensor(np.array([3, 0, 7], dtype), "y")
    assert label.dtype == torch.int64 and label.tolist() == [3, 0, 7]


@pytest.mark.parametrize(
    "array",
    [np.zeros(4), np.zeros(4, bool), np.zeros((4, 1), np.int64), np.array(3), np.array(["0", "1"])],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_labels_of_another_kind_are_refused(array, refused):
    with refused("`train_labels`", "integer", str(array.dtype), str(array.shape)):
        to_label_tensor(array, "train_labels")


@pytest.mark.parametrize(("label", "classes"), [(-1, 3), (3, 3), (-1, None)])
def test_a_label_out_of_range_is_refused(label, classes, refused):
    with refused("things", "0 …", str(label)):
        check_range(torch.tensor([0, label, 1]), classes, "things")


def test_labels_in_range_pass():
    check_range(torch.tensor([0, 2]), 3, "things")
    check_range(torch.tensor([0, 1000]), None, "things")
    check_range(torch.tensor([], dtype=torch.int64), 3, "things")


# --- ImageSet


def image_set(primary, auxiliary=None, images=4):
    auxiliary = None if auxiliary is None else torch.tensor(auxiliary)
    return ImageSet(torch.zeros(images, 3, 2, 2, dtype=torch.uint8), torch.tensor(primary), auxiliary)


def test_a_set_that_fits_its_hierarchy_is_given_back():
    for images in (image_set([0, 1, 1, 0]), image_set([0, 1, 1, 0], [1, 2, 4, 0])):
        assert images.check(LabelHierarchy((2, 3)), "training") is images
        assert len(images) == 4


@pytest.mark.parametrize(
    ("primary", "auxiliary", "words"),
    [
        ([0, 1, 1], None, ("3 training primary labels", "4 images")),
        ([0, 1, 1, 0, 0], None, ("5 training primary labels", "4 images")),
        ([0, 1, 2, 0], None, ("training primary labels", "0 … 1", "2")),
        ([0, 1, -1, 0], None, ("training primary labels", "0 … 1", "-1")),
        ([0, 1, 1, 0], [0, 2, 2], ("3 training auxiliary labels", "4 images")),
        ([0, 1, 1, 0], [0, 2, 5, 0], ("training auxiliary labels", "0 … 4", "5")),
        ([0, 1, 1, 0], [0, 2, -1, 0], ("training auxiliary labels", "0 … 4", "-1")),
        ([0, 1, 1, 0], [0, 2, 1, 0], ("auxiliary label 1", "primary class 1", "training image 2")),
        ([0, 1, 1, 0], [0, 2, 3, 2], ("auxiliary label 2", "primary class 0", "training image 3")),
    ],
)
def test_a_set_that_does_not_fit_is_refused(primary, auxiliary, words, refused):
    with refused(*words):
        image_set(primary, auxiliary).check(LabelHierarchy((2, 3)), "training")


def test_an_empty_set_is_refused(refused):
    with refused("test images", "none"):
        image_set([], images=0).check(LabelHierarchy((2, 3)), "test")


# --- reading .npz


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_only_the_arrays_asked_for_are_read(save, tmp_path):
    path = tmp_path / "x.npz"
    a, b = noise(3, 4), np.arange(5)
    save(path, a=a, b=b, c=np.array([{}], object))
    read = read_npz(path, ("b", "a"))
    assert sorted(read) == ["a", "b"]
    np.testing.assert_array_equal(read["a"], a)
    np.testing.assert_array_equal(read["b"], b)
    assert npz_keys(path) == ["a", "b", "c"]


def test_a_missing_array_is_named(tmp_path, refused):
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    with refused(str(tmp_path / "x.npz"), "`b`", "['a']"):
        read_npz(tmp_path / "x.npz", ("a", "b"))


def test_a_missing_file_is_named(tmp_path, refused):
    with refused(str(tmp_path / "x.npz")):
        read_npz(tmp_path / "x.npz", ("a",))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


def garbage(path):
    path.write_bytes(noise(500).tobytes())


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<html>404</html>\n\nnot found")


def a_pickle(path):
    path.write_bytes(pickle.dumps({"a": Bomb(path.with_name("exploded"))}))


def one_array(path):
    with path.open("wb") as file:
        np.save(file, np.arange(3))


def a_zip_cut_in_its_middle(path):
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize("spoil", [truncated, garbage, empty, text, a_pickle, one_array, a_zip_cut_in_its_middle])
def test_a_file_that_is_no_npz_is_refused(spoil, tmp_path, refused):
    path = tmp_path / "x.npz"
    np.savez(path, a=noise(20, 20))
    spoil(path)
    with refused(str(path), ".npz"):
        read_npz(path, ("a",))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("spoil", [truncated, garbage, one_array])
def test_a_refused_file_is_closed(spoil, tmp_path, refused):
    path = tmp_path / "x.npz"
    np.savez(path, a=noise(20, 20))
    spoil(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        with refused(".npz"):
            read_npz(path, ("a",))
        gc.collect()
    assert [str(warning.message) for warning in caught if str(path) in str(warning.message)] == []


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_array_is_named_and_its_neighbours_can_be_read(save, tmp_path, damage, refused):
    path = tmp_path / "x.npz"
    save(path, a=noise(40, 40), b=noise(7))
    damage(path, "a.npy")
    with zipfile.ZipFile(path) as archive, pytest.raises((zipfile.BadZipFile, zlib.error)):
        archive.read("a.npy")  # the damage is real
    np.testing.assert_array_equal(read_npz(path, ("b",))["b"], noise(7))
    with refused(str(path), "`a`"):
        read_npz(path, ("b", "a"))


def test_a_member_that_is_no_array_is_refused(tmp_path, refused):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", b"checksum right, header wrong")
    with refused(str(tmp_path / "x.npz"), "`a`"):
        read_npz(tmp_path / "x.npz", ("a",))


def test_an_array_of_objects_is_refused_and_not_unpickled(tmp_path, refused):
    path, mark = tmp_path / "x.npz", tmp_path / "exploded"
    np.savez(path, a=np.array([Bomb(mark)], object))
    with refused(str(path), "`a`"):
        read_npz(path, ("a",))
    assert not mark.exists()
    with np.load(path, allow_pickle=True) as archive:
        archive["a"]
    assert mark.exists()  # the bomb works


# --- batches


@pytest.mark.parametrize("human", [True, False])
def test_a_batch_points_into_the_full_split(human):
    image = torch.from_numpy(noise(10, 3, 2, 2))
    primary, auxiliary = torch.arange(10) + 100, torch.arange(10) + 200
    dataset = BatchDataset(ImageSet(image, primary, auxiliary if human else None), torch.tensor([9, 2, 5, 7]))
    batch = dataset[Draw(torch.tensor([3, 0]), 17)]
    assert len(dataset) == 4
    assert batch.index.tolist() == [7, 9]
    assert batch.primary.tolist() == [107, 109]
    assert (batch.auxiliary.tolist() == [207, 209]) if human else (batch.auxiliary is None)
    assert torch.equal(batch.image, torch.stack([image[7], image[9]]))
    assert batch.seed == 17
