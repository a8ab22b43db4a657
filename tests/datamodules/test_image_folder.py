import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from auxlight import CIFAR10DataModule, ImageFolderDataModule, InputError
from auxlight.cli import main
from tests.test_cli import QUIET, TINY

TREE = {"cat": ("persian", "siamese"), "dog": ("beagle", "collie", "pug"), "owl": ("barn",)}


def paint(path, colour=(10, 20, 30), size=(32, 32), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def root(tmp_path):
    """Unequal numbers of sub-classes and of images; the first channel is the sub-class, the second the image."""
    for split, count in (("train", 8), ("test", 2)):
        sub_classes = [(primary, sub) for primary, subs in TREE.items() for sub in subs]
        for k, (primary, sub) in enumerate(sub_classes):
            for i in range(count + k % 2):
                paint(tmp_path / "data" / split / primary / sub / f"{i}.png", (40 * k, i, 7))
    return tmp_path / "data"


def data(root, **options):
    return ImageFolderDataModule(root, **{"batch_size": 5} | options)


def test_folders_are_classes_and_sub_classes_of_unequal_number(root):
    module = data(root)
    assert module.hierarchy.psi == (2, 3, 1)
    assert module.class_names == ["cat", "dog", "owl"]
    assert module.auxiliary_names == [f"{primary}/{sub}" for primary, subs in TREE.items() for sub in subs]
    for train, count in ((True, 8), (False, 2)):
        images = module.load_split(train).check(module.hierarchy, "these")
        assert len(images) == 6 * count + 3
        assert torch.equal(images.image[:, 0, 0, 0].long(), 40 * images.auxiliary)
        assert torch.equal(images.primary, module.hierarchy.parents[images.auxiliary])
        names = module.file_names(train)
        split = "train" if train else "test"
        for name, pixel, sub in zip(names, images.image[:, 1, 0, 0].tolist(), images.auxiliary.tolist(), strict=True):
            assert name == f"{split}/{module.auxiliary_names[sub]}/{pixel}.png"


def test_sub_classes_may_be_missing(tmp_path):
    for split in ("train", "test"):
        for primary in ("a", "b"):
            for i in range(3):
                paint(tmp_path / split / primary / f"{i}.jpg")
    module = data(tmp_path, psi=[2, 4])
    assert module.hierarchy.psi == (2, 4)
    assert data(tmp_path).hierarchy.psi == (5, 5)
    assert module.load_split(True).auxiliary is None
    assert module.auxiliary_names == list("012345")


def test_a_class_without_test_images_is_warned_of(root):
    shutil.rmtree(root / "test/owl")
    with pytest.warns(UserWarning, match="'owl'"):
        data(root)


def test_without_a_test_folder_a_share_is_held_out(root):
    shutil.rmtree(root / "test")
    module = data(root, test_split=0.25, seed=3)
    train, test = (set(module.file_names(part)) for part in (True, False))
    everything = {path.relative_to(root).as_posix() for path in (root / "train").rglob("*.png")}
    assert train | test == everything and not train & test and len(test) == round(0.25 * len(everything))
    assert set(data(root, test_split=0.25, seed=3).file_names(False)) == test
    assert set(data(root, test_split=0.25, seed=4).file_names(False)) == test  # no seed trains on another's
    assert sorted(set(module.load_split(False).auxiliary.tolist())) == list(range(6))  # stratified


def test_grey_images_transparency_and_cameras_that_were_turned(tmp_path):
    for split in ("train", "test"):
        for primary in ("a", "b"):
            paint(tmp_path / split / primary / "grey.png", 99, mode="L")
            paint(tmp_path / split / primary / "clear.png", (1, 2, 3, 0), mode="RGBA")
            (tmp_path / split / primary / "notes.txt").write_text("no image")
            (tmp_path / split / primary / ".hidden.png").write_text("no image either")
            turned = Image.fromarray(np.vstack([np.zeros((16, 32)), np.full((16, 32), 255)]).astype(np.uint8))
            exif = Image.Exif()
            exif[0x0112] = 3  # upside down
            turned.save(tmp_path / split / primary / "turned.png", exif=exif)
    images = data(tmp_path).load_split(True).image
    assert images.shape == (6, 3, 32, 32)
    assert images[0, :, 0, 0].tolist() == [1, 2, 3] and images[1, :, 0, 0].tolist() == [99] * 3
    assert images[2, 0, 0, 0] == 255 and images[2, 0, -1, 0] == 0


def test_images_of_several_sizes_need_a_size_that_is_named(root):
    paint(root / "train/dog/pug/large.png", (80, 200, 7), (64, 48))
    with pytest.raises(InputError, match="`image_size` must be set") as error:
        data(root).setup()
    assert "64 × 48" in str(error.value) and "large.png" in str(error.value) and "32 × 32" in str(error.value)
    module = data(root, image_size=40)
    module.setup()
    assert module.image_shape == (3, 40, 40)


def test_an_image_that_cannot_be_read_is_named(root):
    broken = root / "train/cat/siamese/3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(InputError, match=r"siamese/3\.png cannot be read as an image"):
        data(root).setup()
    broken.write_text("")
    with pytest.raises(InputError, match=r"siamese/3\.png cannot be read as an image"):
        data(root).setup()


def test_sixteen_bits_are_refused(root):
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(root / "train/cat/siamese/0.png")
    with pytest.raises(InputError, match="8 bits per channel"):
        data(root).setup()


def rearranged(root, what):
    """The folder with one thing wrong."""
    if what == "no train":
        (root / "train").rename(root / "elsewhere")
    elif what == "no class":
        (root / "train").rename(root / "elsewhere")
        (root / "train").mkdir()
    elif what == "one class":
        for name in ("dog", "owl"):
            (root / "train" / name).rename(root / f"no {name}")
    elif what == "empty class":
        (root / "train/fox").mkdir()
    elif what == "empty sub-class":
        (root / "train/owl/snowy").mkdir()
    elif what == "some divided":
        paint(root / "train/fox/0.png")
    elif what == "both":
        paint(root / "train/owl/0.png")
    elif what == "loose":
        paint(root / "train/0.png")
    elif what == "too deep":
        paint(root / "train/owl/barn/young/0.png")
    elif what == "no test":
        (root / "test").rename(root / "elsewhere")
    elif what == "strange test class":
        paint(root / "test/fox/red/0.png")
    elif what == "strange test sub-class":
        paint(root / "test/owl/snowy/0.png")
    return root


WRONG = {
    "no train": ("`root`", "train"),
    "no class": ("folder for each primary class", "none"),
    "one class": ("at least two primary classes", "cat"),
    "empty class": ("must hold images", "fox"),
    "empty sub-class": ("must hold images", "snowy"),
    "some divided": ("sub-class folders, or none", "fox"),
    "both": ("images or sub-class folders", "owl", "barn/"),
    "loose": ("folder of its class", "0.png"),
    "too deep": ("<primary>/<sub>/", "young"),
    "no test": ("test_split: 0.2", "test"),
    "strange test class": ("must be one of train/", "fox"),
    "strange test sub-class": ("must be one of train/", "snowy"),
}


@pytest.mark.parametrize("what", WRONG)
def test_each_mistake_gets_one_line(what, root, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    configs = Path(__file__).parents[2] / "configs"
    words = ["fit", f"--config={configs}/human.yaml", f"--config={configs}/data/image_folder.yaml", *TINY, *QUIET]
    with pytest.raises(SystemExit) as stop:
        main([*words, f"--data.root={rearranged(root, what)}"])
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert stop.value.code == 2 and len(lines) == 1 and "Traceback" not in lines[0]
    assert all(part in lines[0] for part in WRONG[what]), lines[0]


def test_further_images_may_be_of_any_data_set(root, write):
    (root / ".thumbs").mkdir()
    paint(root / ".thumbs" / "0.png")
    module = CIFAR10DataModule(write("cifar10"), batch_size=6, predict_root=root)
    (batch, *_) = module.predict_dataloader()
    assert batch.image.shape == (6, 3, 32, 32) and batch.primary.tolist() == [-1] * 6
    assert len(module.predicted_file_names()) == module.split_size("predict") == 51 + 15
    with pytest.raises(InputError, match="`predict_root` must be a folder with images"):
        CIFAR10DataModule(write("cifar10"), batch_size=6, predict_root=root / "none").predict_dataloader()


@pytest.mark.parametrize(
    ("options", "part"),
    [({"image_size": 0}, "image_size"), ({"psi": 5}, "psi"), ({"test_split": 0.5}, "test_split")],
)
def test_wrong_arguments_are_refused(options, part, root):
    with pytest.raises(InputError, match=part):
        data(root, **options)


def test_a_folder_trains_from_the_command_line_and_its_labels_name_files(root, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    configs = Path(__file__).parents[2] / "configs"
    words = ["fit", f"--config={configs}/rl.yaml", f"--config={configs}/data/image_folder.yaml", *TINY, *QUIET]
    main([*words, f"--data.root={root}", "--data.batch_size=10"])
    assert "test/accuracy" in capsys.readouterr().out
    main(["label", "--ckpt_path", str(next(Path("logs").rglob("last.ckpt")))])
    labels = np.load("labels.npz")
    assert len(labels["path"]) == 51 + 15
    main(["predict", "--ckpt_path", str(next(Path("logs").rglob("last.ckpt")))])
    predictions = dict(np.load("predictions.npz"))
    assert predictions["class_names"].tolist() == ["cat", "dog", "owl"]
    assert predictions["path"].tolist() == data(root).file_names(train=False)
    for name in predictions["path"][[0, 9]]:  # elsewhere, at another size, and of no known class
        further = tmp_path / "new" / Path(name).parent.name / "x.webp"
        further.parent.mkdir(parents=True)
        with Image.open(root / name) as image:
            image.resize((40, 48)).save(further, lossless=True)
    main(["predict", "--ckpt_path", str(next(Path("logs").rglob("last.ckpt"))), "--data.predict_root=new"])
    again = np.load("predictions.npz")
    assert again["path"].tolist() == ["collie/x.webp", "persian/x.webp"]
    np.testing.assert_allclose(again["probabilities"], predictions["probabilities"][[9, 0]], atol=1e-6)
    owner = {name: y for y, name in enumerate(TREE)}
    assert [owner[name.split("/")[1]] for name in labels["path"]] == labels["primary"].tolist()
