import pytest

from auxlight import InputError
from auxlight.comparison import Comparison, Method
from auxlight.comparison.check import check_arguments
from tests.comparison.test_compare import CONFIGS, comparison, pretend


def test_what_fit_accepts_is_accepted(tmp_path, capsys):
    check_arguments(comparison(tmp_path, "single", "human").runs())
    assert capsys.readouterr() == ("", "")


def test_a_misspelt_argument_is_found_before_the_first_run(tmp_path):
    good = Method([str(CONFIGS / "single.yaml")], control=True)
    wrong = Method([str(CONFIGS / "cluster.yaml")], ["--model.labeler.start_epok=1"])
    study = Comparison({"single": good, "mine": wrong}, [0], folder=tmp_path)
    with pytest.raises(InputError) as error:
        check_arguments(study.runs())
    assert "data/mine" in str(error.value) and "start_epok" in str(error.value) and "\n" not in str(error.value)
    for run in study.runs():
        pretend(run, 0.5)
    check_arguments(study.runs())  # nothing of it is to run
