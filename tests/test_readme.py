"""What a reader copies from the README runs."""

import re
import shlex
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
import yaml
from tensorboard.program import TensorBoard

from auxlight.cli import main
from tests.test_cli import QUIET, mirrors  # noqa: F401

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SHORT = ["--trainer.limit_train_batches=2", "--trainer.limit_test_batches=2"]
VGG = ["--model.width=0.0625", "--model.depth=11"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [
    line.split("#")[0].strip() for block in blocks("bash") for line in block.splitlines() if line.startswith("auxlight")
]


def run(command, root, epochs):
    """The command as written, from a folder that holds configs/ and data/, but short."""
    words = shlex.split(command)[1:]
    words = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    words = [str(root) if word == "data" else word for word in words]
    words = ["300" if word == "5000" else word for word in words]
    extra = [*SHORT, *QUIET, *([] if "experiments" in command else VGG)]
    if "cifar10_ssl" in command:
        extra += ["--data.num_labelled=80", "--data.batch_size=16", "--model.depth=10" if len(words) < 6 else VGG[1]]
    if words[0] == "fit" and "--trainer.max_epochs" not in words:
        extra.append(f"--trainer.max_epochs={epochs}")
    main([*words, *extra])


def test_every_command_runs_in_the_order_of_the_page(mirrors, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    assert len(COMMANDS) >= 8
    for command in COMMANDS:
        # Those that resume look for the first run's folder.
        run(command, mirrors, epochs=1)
        assert "test/accuracy" in capsys.readouterr().out or command.split()[1] == "predict"
    assert len(np.load("predictions.npz")["index"])


def test_tensorboard_opens_the_folder_of_the_page(tmp_path):
    assert "tensorboard --logdir logs" in README
    board = TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(tmp_path), "--port", "0", "--load_fast", "false"])
    with urlopen(board.launch()) as page:
        assert page.status == 200


def test_make_fit_is_the_command_of_the_page():
    makefile = (ROOT / "Makefile").read_text()
    assert COMMANDS[0] in makefile.replace("$(BIN)/", "")
    assert README.index("make fit") < README.index("make test") < README.index("auxlight fit")


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_every_script_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = blocks("python")[number].replace("max_epochs=2", "max_epochs=1, limit_train_batches=2")
    exec(compile(code, f"README block {number}", "exec"), {"__name__": "readme"})


def test_the_labeler_of_the_page_is_usable_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    monkeypatch.syspath_prepend(tmp_path)  # undone afterwards, with what `main` adds
    (block,) = (block for block in blocks("python") if "NoisyHumanLabels" in block)
    Path("mylabels.py").write_text(block)
    words = [f"--config={ROOT / 'configs'}/{name}.yaml" for name in ("human", "data/digits")]
    words += ["--model.labeler=mylabels.NoisyHumanLabels", "--model.labeler.noise=0.1", "--trainer.fast_dev_run=true"]
    main(["fit", *words, *VGG, *QUIET])
    assert "test/accuracy" in capsys.readouterr().out


def test_the_yaml_of_a_foreign_trunk_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    (block,) = blocks("yaml")
    yaml.safe_load(block)
    Path("model.yaml").write_text(block)
    words = ["--config=model.yaml", f"--config={ROOT / 'configs/data/digits.yaml'}"]
    main(["fit", *words, "--trainer.fast_dev_run=true", *QUIET])
    assert "test/accuracy" in capsys.readouterr().out


def test_every_config_is_in_a_table():
    for path in (ROOT / "configs").rglob("*.yaml"):
        name = str(path.relative_to(ROOT / "configs"))
        listed = f"`{path.name}`" if path.parent.name == "combiners" else f"`{name}`"
        assert listed in README or f"configs/{name}" in README, name
