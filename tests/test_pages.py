"""What a reader copies from the README and the documentation runs, and every link leads somewhere."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from unittest import mock
from urllib.request import urlopen

import pytest
import yaml
from tensorboard.program import TensorBoard

from auxlight.cli import main
from tests.test_cli import QUIET, mirrors  # noqa: F401

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in path.parts
}
SHORT = ["--trainer.limit_train_batches=2", "--trainer.limit_test_batches=2"]
VGG = ["--model.width=0.0625", "--model.depth=11"]
# Commands that a block may call beside auxlight; what they do is tested elsewhere, or is theirs.
OTHERS = ("make", "tensorboard", "source", "pip")

# Two steps are fewer than AuxiLearn's interval.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The label network steps every"),
    pytest.mark.filterwarnings("ignore:Clusters are made"),
]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def with_blocks(language):
    return [page for page in PAGES if blocks(page, language)]


def commands(block, folder):
    """The calls of `auxlight` in a shell block, which a real shell reads: loops, variables and `srun` included."""
    shims, calls = folder / "shims", folder / "calls"
    shims.mkdir(exist_ok=True)
    calls.write_text("")
    texts = dict.fromkeys(OTHERS, "exit 0")
    texts |= {"auxlight": f'printf "%s\\n" "$@" __end__ >> {shlex.quote(str(calls))}', "srun": '"$@"'}
    for name, text in texts.items():
        (shims / name).write_text(f"#!/bin/sh\n{text}\n")
        (shims / name).chmod(0o755)
    block = re.sub(r"^source .*$", "", block, flags=re.MULTILINE)
    # Nothing else is on the path: a command that is not known ends the block.
    subprocess.run(["/bin/bash", "-euc", block], env={"PATH": str(shims)}, cwd=folder, check=True)
    found, words = [], []
    for line in calls.read_text().splitlines():
        if line == "__end__":
            found.append(words)
            words = []
        else:
            words.append(line)
    return found


def fit_here(words, about, files, folder, cwd, threads):
    """A run of a comparison without a process of its own, which takes seconds to import everything."""
    main(words)
    return True


def run(words, folders, look):
    """A command as written, from a folder that holds configs/, data/ and photos/, but short, and on one device."""
    short = {"5000": "300", **folders}
    words = [str(ROOT / word) if word.startswith("configs/") else short.get(word, word) for word in words]
    if words[0] == "budget":
        counts = "[20,30,40]" if "digits" in " ".join(words) else "[8,16,24]"
        words += ["--training.steps=2", f"--estimator.counts={counts}", "--seed_size=60"]
        words += ["--seeds=2"] if words[1] == "simulate" else []
        main(words)
        return
    if words[0] == "compare":
        if not Path("configs").exists():
            Path("configs").symlink_to(ROOT / "configs")
        short_run = ["--trainer.max_epochs=1", *VGG, "--data.num_train=200", "--inspection.every_n_epochs=0"]
        with mock.patch("auxlight.comparison.runner.fit", fit_here):
            main([*words, "--jobs=1", "--seeds=[0]", *(f"--common.arguments+={word}" for word in short_run)])
        return
    for option in ("--trainer.devices", "--trainer.num_nodes"):  # tests/modules/test_ddp.py has two processes
        if option in words:
            words[words.index(option) + 1] = "1"
    extra = [*SHORT, *QUIET, "--trainer.accelerator=cpu"]
    if "--config" in words:
        joined = " ".join(words)
        extra += [] if "experiments" in joined else VGG
        if "cifar10_ssl" in joined:
            small = "cifar10_ssl_small" in joined
            extra += ["--data.num_labelled=80", "--data.batch_size=16", VGG[1] if small else "--model.depth=10"]
        if not look:
            extra.append("--inspection.every_n_epochs=0")
    if "--model.lookahead_steps" in words:
        words[words.index("--model.lookahead_steps") + 1] = "2"
    if words[0] == "fit" and not {"--trainer.max_epochs", "--ckpt_path"} & set(words):
        extra.append("--trainer.max_epochs=1")
    if "--trainer.max_epochs" in words:
        words[words.index("--trainer.max_epochs") + 1] = "2"
    main([*words, *extra])


@pytest.mark.parametrize("page", with_blocks("bash"))
def test_every_command_runs_in_the_order_of_the_page(page, mirrors, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    folders = {"data": str(mirrors), "photos": str(mirrors), "new_photos": str(mirrors)}
    for words in [words for block in blocks(page, "bash") for words in commands(block, tmp_path)]:
        run(words, folders, look=page == "docs/howto/look.md")
        said = {"predict": "Predictions of", "label": "Labels of", "budget": "Written to", "compare": "Written to"}.get(
            words[0], "test/accuracy"
        )
        assert said in capsys.readouterr().out


def test_a_command_that_is_not_known_ends_a_block(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        commands("auxlite fit\n", tmp_path)
    assert commands("for i in 1 2; do auxlight fit --n $i; done  # twice", tmp_path) == [
        ["fit", "--n", "1"],
        ["fit", "--n", "2"],
    ]


def test_tensorboard_opens_the_folder_of_the_page(tmp_path):
    assert "tensorboard --logdir logs" in README
    board = TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(tmp_path), "--port", "0", "--load_fast", "false"])
    with urlopen(board.launch()) as page:
        assert page.status == 200


def test_make_fit_is_the_command_of_the_page():
    makefile = (ROOT / "Makefile").read_text()
    (first,) = re.findall(r"^auxlight fit .*wa_rl.*small\.yaml$", README, flags=re.MULTILINE)[:1]
    assert first in makefile.replace("$(BIN)/", "")
    assert README.index("make fit") < README.index("make test") < README.index("auxlight fit")


SCRIPTS = [(page, number) for page in with_blocks("python") for number in range(len(blocks(page, "python")))]


@pytest.mark.parametrize(("page", "number"), SCRIPTS)
def test_every_script_runs(page, number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = blocks(page, "python")[number].replace("max_epochs=2", "max_epochs=1, limit_train_batches=2")
    exec(compile(code, f"{page} block {number}", "exec"), {"__name__": "page"})


OWN = "docs/howto/own_parts.md"


def test_the_labeler_of_the_page_is_usable_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    monkeypatch.syspath_prepend(tmp_path)  # undone afterwards, with what `main` adds
    (block,) = (block for block in blocks(OWN, "python") if "NoisyHumanLabels" in block)
    Path("mylabels.py").write_text(block)
    words = [f"--config={ROOT / 'configs'}/{name}.yaml" for name in ("human", "data/digits")]
    words += ["--model.labeler=mylabels.NoisyHumanLabels", "--model.labeler.noise=0.1", "--trainer.fast_dev_run=true"]
    main(["fit", *words, *VGG, *QUIET])
    assert "test/accuracy" in capsys.readouterr().out


def test_the_yaml_of_a_foreign_trunk_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    (block,) = blocks(OWN, "yaml")
    assert all("```yaml" not in text for page, text in PAGES.items() if page != OWN)
    yaml.safe_load(block)
    Path("model.yaml").write_text(block)
    words = ["--config=model.yaml", f"--config={ROOT / 'configs/data/digits.yaml'}"]
    main(["fit", *words, "--trainer.fast_dev_run=true", *QUIET])
    assert "test/accuracy" in capsys.readouterr().out


def test_blocks_are_of_kinds_that_are_run():
    for page, text in PAGES.items():
        kinds = set(re.findall(r"^```(\S*)$", text, flags=re.MULTILINE)) - {""}
        kinds = {kind for kind in kinds if not kind.startswith("{")}
        assert kinds <= {"bash", "python", "yaml", "text"}, page


def test_every_config_is_on_a_page():
    methods = "\n".join(text for page, text in PAGES.items() if page.startswith("docs/methods"))
    for path in (ROOT / "configs").rglob("*.yaml"):
        name = str(path.relative_to(ROOT / "configs"))
        listed = f"`{path.name}`" if path.parent.name == "combiners" else f"`{name}`"
        assert listed in README or f"configs/{name}" in "\n".join(PAGES.values()), name
        if path.parent.name in ("combiners", "configs", "tasks") and path.stem != "small":
            assert path.name in methods, name


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    folder = (ROOT / page).parent
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page]):
        if target.startswith("http"):
            assert re.fullmatch(r"https://(arxiv\.org/abs/\d{4}\.\d{5}|torchjd\.org)", target), target
        else:
            assert (folder / target.split("#")[0]).exists(), target
    for image in re.findall(r"```\{image\} (\S+)", PAGES[page]):
        assert (folder / image).is_file(), image


def test_every_method_has_a_page_with_equation_and_source():
    for page, text in PAGES.items():
        if page.startswith("docs/methods") and not page.endswith("index.md"):
            assert "$" in text and "```bash" in text, page
            assert "Changed" in text or "control" in text.lower() or "Needs" in text, page
            assert "aper" in text, page


def test_the_documentation_builds_without_a_warning(tmp_path):
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(ROOT / "docs"), str(tmp_path / "site")]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site" / "index.html").read_text()
    assert "Auxiliary learning with PyTorch Lightning" in index
    reference = (tmp_path / "site" / "reference" / "labelers.html").read_text()
    assert "auxlight.LabelNetwork" in reference and "straight-through" in reference
