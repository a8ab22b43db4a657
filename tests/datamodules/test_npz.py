import numpy as np
import pytest

from auxlight import NpzDataModule

SIZE = {"train": 40, "test": 12}


def labels(per_class):
    """Arrays of labels in which image i has entry i of `per_class`, over and over."""
    return {split: np.array([per_class[i % len(per_class)] for i in range(size)]) for split, size in SIZE.items()}


def human(primary, auxiliary):
    """Label arrays that repeat these pairs."""
    named = {"primary": labels(primary), "auxiliary": labels(auxiliary)}
    return {f"{split}_{kind}": array for kind, by_split in named.items() for split, array in by_split.items()}


def data(root, **options):
    return NpzDataModule(root, **{"batch_size": 10} | options)


def test_without_sub_labels_psi_is_five_or_as_told(write, arrays):
    root = write("images")
    assert data(root).hierarchy.psi == (5, 5)
    assert data(root, psi=3).hierarchy.psi == (3, 3)
    assert data(root, psi=[1, 4]).hierarchy.psi == (1, 4)
    images = data(root).load_split(False)
    assert images.auxiliary is None
    assert images.primary.tolist() == arrays("images")["test_primary"].tolist()


def test_sub_labels_of_any_order_come_into_block_order(write):
    # Class 0 owns {1, 4}, class 1 owns {0}, class 2 owns {2, 3, 5}.
    root = write("images", **human([0, 0, 1, 2, 2, 2], [4, 1, 0, 5, 2, 3]))
    module = data(root)
    assert module.hierarchy.psi == (2, 1, 3)
    for train, size in ((True, 40), (False, 12)):
        images = module.load_split(train).check(module.hierarchy, "these")
        expected = [[1, 0, 2, 5, 3, 4][i % 6] for i in range(size)]
        assert images.auxiliary.tolist() == expected


def test_psi_may_say_what_the_sub_labels_say(write):
    root = write("images", **human([0, 0, 1], [0, 1, 2]))
    assert data(root, psi=[2, 1]).hierarchy.psi == (2, 1)


def test_the_name_chooses_the_file(write, tmp_path):
    write("images")
    (tmp_path / "images.npz").rename(tmp_path / "mine.npz")
    assert data(tmp_path, name="mine").load_split(True).image.shape == (40, 3, 32, 32)


@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3)])
def test_images_of_any_size_grey_or_in_colour(shape, write):
    arrays = {f"{split}_images": np.full((size, *shape), 9, np.uint8) for split, size in SIZE.items()}
    module = data(write("images", **arrays))
    module.setup()
    assert module.image_shape == (3, 8, 6)
    assert next(iter(module.test_dataloader())).image.unique().tolist() == [9]


def test_images_are_enlarged_bilinearly(write, enlarge):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 6), dtype=np.uint8)
    image = data(write("images", train_images=images), image_size=20).load_split(True).image
    assert image.shape == (40, 3, 20, 20)
    for position in (0, 39):
        # torch interpolates uint8 in fixed point.
        np.testing.assert_allclose(image[position, 1], enlarge(images[position], 20), atol=1.5)


def test_shrunken_images_show_no_moiré(write):
    stripes = np.zeros((40, 64, 64), np.uint8)
    stripes[:, :, ::4] = 255
    image = data(write("images", train_images=stripes), image_size=16).load_split(True).image
    inner = image[0, 0, :, 2:-2].float()
    assert (inner - 255 / 4).abs().max() < 5  # every pixel sees each stripe's share, not one column of four


# --- bad input


def test_a_missing_file_says_what_to_do(tmp_path, refused):
    with refused("`root`", "`name`", str(tmp_path / "mine.npz"), "train_primary"):
        data(tmp_path, name="mine")


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, None])
def test_a_damaged_file_is_named(content, write, refused):
    path = write("images") / "images.npz"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with refused(str(path), ".npz"):
        data(path.parent)


@pytest.mark.parametrize("key", ["train_images", "test_images", "train_primary", "test_primary", "test_auxiliary"])
@pytest.mark.parametrize("how", ["missing", "damaged", "objects"])
def test_a_missing_or_damaged_array_is_named(key, how, write, damage, refused):
    change = {"missing": {key: None}, "damaged": {}, "objects": {key: np.array([{}] * 12)}}[how]
    root = write("images", **human([0, 0, 1], [0, 1, 2]) | change)
    if how == "damaged":
        damage(root / "images.npz", f"{key}.npy")
    with refused("images.npz", f"`{key}`"):
        data(root).setup()


@pytest.mark.parametrize("key", ["train_primary", "train_auxiliary", "test_primary", "test_auxiliary"])
def test_a_negative_label_is_refused(key, write, refused):
    arrays = human([0, 0, 1], [0, 1, 2])
    arrays[key] = np.where(np.arange(len(arrays[key])) == 5, -1, arrays[key])
    with refused(*key.split("_"), "0 …", "-1"):
        data(write("images", **arrays)).setup()


@pytest.mark.parametrize("key", ["test_primary", "test_auxiliary"])
def test_a_test_label_that_training_never_shows_is_refused(key, write, refused):
    arrays = human([0, 0, 1], [0, 1, 2])
    arrays[key][5] = 7
    with refused(*key.split("_"), "0 …", "7"):
        data(write("images", **arrays)).setup()


@pytest.mark.parametrize("key", ["train_primary", "train_auxiliary"])
@pytest.mark.parametrize("has_sub_labels", [True, False])
def test_a_label_far_too_large_is_refused(key, has_sub_labels, write, arrays, refused):
    made = arrays("images") | (human([0, 0, 1], [0, 1, 2]) if has_sub_labels else {})
    made[key] = np.where(np.arange(40) == 5, 2**62, made["train_primary"])  # no machine has memory for as many classes
    with refused("train_", str(2**62)):
        data(write("images", **made)).setup()


@pytest.mark.parametrize("key", ["train_primary", "train_auxiliary", "test_primary", "test_auxiliary"])
@pytest.mark.parametrize("change", [-1, 1])
def test_one_label_per_image(key, change, write, refused):
    arrays = human([0, 0, 1], [0, 1, 2])
    size = len(arrays[key])
    arrays[key] = np.resize(arrays[key], size + change)
    with refused("one label per image", str(size), str(size + change)):
        data(write("images", **arrays)).setup()


@pytest.mark.parametrize("key", ["train_primary", "train_auxiliary", "test_primary", "test_auxiliary"])
def test_labels_are_integers(key, write, refused):
    arrays = human([0, 0, 1], [0, 1, 2])
    arrays[key] = arrays[key] / 1
    with refused(f"`{key}`", "integer", "float64"):
        data(write("images", **arrays)).setup()


@pytest.mark.parametrize(
    ("primary", "auxiliary"),
    [([0, 0, 1], [0, 1, 1]), ([0, 0, 1], [0, 3, 2]), ([0, 0, 1], [1, 2, 3])],
    ids=["in two primary classes", "one skipped", "from one up"],
)
def test_sub_labels_that_are_no_hierarchy_are_refused(primary, auxiliary, write, refused):
    with refused("`train_auxiliary`", "each inside one primary class", "Found"):
        data(write("images", **human(primary, auxiliary)))


def test_a_primary_class_without_sub_label_is_refused(write, refused):
    with refused("primary class", "Found none"):
        data(write("images", **human([0, 0, 2], [0, 1, 2])))


def test_a_test_sub_label_of_another_class_is_refused(write, refused):
    arrays = human([0, 0, 1], [0, 1, 2])
    arrays["test_auxiliary"][4] = 2
    with refused("auxiliary label 2", "primary class 0", "test image 4"):
        data(write("images", **arrays)).setup()


@pytest.mark.parametrize("psi", [0, -1, [5], [5, 5, 5], [5, 0], 2.5])
def test_psi_that_does_not_fit_is_refused(psi, write, refused):
    with refused("`psi`", "Found"):
        data(write("images"), psi=psi)


@pytest.mark.parametrize("psi", [5, [1, 2], [2], 0])
def test_psi_that_contradicts_the_sub_labels_is_refused(psi, write, refused):
    with refused("`psi`", "Found"):
        data(write("images", **human([0, 0, 1], [0, 1, 2])), psi=psi)


@pytest.mark.parametrize("split", ["training", "test"])
def test_an_empty_split_is_refused(split, write, arrays, refused):
    short = "train" if split == "training" else "test"
    cut = {key: array[:0] for key, array in arrays("images").items() if key.startswith(short)}
    with refused(f"{split} images", "Found"):
        data(write("images", **cut)).setup()


@pytest.mark.parametrize("image_size", [0, -8])
def test_an_image_size_below_one_is_refused(image_size, write, refused):
    with refused("`image_size`", "positive", str(image_size)):
        data(write("images"), image_size=image_size)


@pytest.mark.parametrize(
    "option",
    [{"std": (0.2, 0.0, 0.2)}, {"std": (0.2, -0.1, 0.2)}, {"std": (0.2, 0.2)}, {"mean": (0.5, 0.5)}, {"mean": ()}],
    ids=str,
)
def test_a_normalisation_that_cannot_be_is_refused(option, write, refused):
    with refused(f"`{next(iter(option))}`"):
        data(write("images"), **option)
