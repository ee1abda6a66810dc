"""The module `nni` that trials import, in processes as trials are."""

import importlib.util
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[3] / "src" / "shoal" / "compat" / "nni" / "path"


class Folder:
    """A trial's folder as the controller makes it, and what a process makes of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "trial"
        self.path.mkdir()
        save = str(root / "checkpoints" / "4" / "0")
        self.parameters = {"lr": 0.5, "load_checkpoint_dir": save, "save_checkpoint_dir": save}
        self.write(id=12, parameters=self.parameters)

    def write(self, *, id: int, parameters: dict[str, Any]) -> None:
        written = {
            "id": id,
            "job": f"{id:05}",
            "experiment": "k3x9q2ab",
            "member": 4,
            "step": 0,
            "attempt": 1,
            "seed": 123456,
            "hparams": {"lr": parameters["lr"]},
            "parameters": parameters,
            "load": None,
            "save": parameters["save_checkpoint_dir"],
        }
        (self.path / "trial.json").write_text(json.dumps(written))

    def env(self, *, alone: bool = False) -> dict[str, str]:
        outside = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NNI_", "SHOAL_", "PYTHON"))
        }
        if alone:
            return {**outside, "PYTHONPATH": str(PATH)}
        ours = {"SHOAL_TRIAL_DIR": str(self.path), "NNI_PLATFORM": "local"}
        return {**outside, "PYTHONPATH": str(PATH), **ours}

    def run(
        self, code: str, *options: str, alone: bool = False, **more: str
    ) -> subprocess.CompletedProcess[str]:
        script = self.root / "script.py"
        script.write_text(code)
        env = {**self.env(alone=alone), **more}
        command = [sys.executable, *options, str(script)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def reports(self) -> list[Any]:
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_trial_gets_its_parameters_and_reports(folder: Folder) -> None:
    ended = folder.run(
        "import json, nni\n"
        "assert nni.get_current_parameter() is None\n"
        "p = nni.get_next_parameter()\n"
        "assert nni.get_current_parameter() is p\n"
        "assert nni.get_current_parameter('lr') == p['lr']\n"
        "nni.report_intermediate_result(0.25)\n"
        "nni.report_final_result({'default': 0.5, 'loss': float('inf')})\n"
        "nni.report_final_result(1)\n"
        "ids = [nni.get_experiment_id(), nni.get_trial_id(), nni.get_sequence_id()]\n"
        "print(json.dumps([p, ids]))\n"
    )
    assert ended.stderr == ""
    assert json.loads(ended.stdout) == [folder.parameters, ["k3x9q2ab", "00012", 12]]
    assert folder.reports() == [
        {"intermediate": 0.25},
        {"final": {"default": 0.5, "loss": float("inf")}},
        {"final": 1},
    ]


def test_it_is_left_to_the_trial_to_make_its_folder(folder: Folder) -> None:
    folder.run("import nni\nnni.get_next_parameter()\n")
    assert not (folder.root / "checkpoints").exists()


def test_asking_again_gives_the_same_untouched_parameters(folder: Folder) -> None:
    ended = folder.run(
        "import nni\n"
        "p = nni.get_next_parameter()\n"
        "p.clear()\n"
        "print(nni.get_next_parameters()['lr'])\n"
    )
    assert (ended.stdout, ended.stderr) == ("0.5\n", "")


@pytest.mark.parametrize("kind", ["intermediate", "final"])
def test_a_report_before_the_parameters_is_an_error(folder: Folder, kind: str) -> None:
    ended = folder.run(f"import nni\nnni.report_{kind}_result(1)\n")
    assert ended.returncode == 1
    message = f"nni.report_{kind}_result() was called before nni.get_next_parameter()"
    assert message in ended.stderr
    assert not (folder.path / "metrics.jsonl").exists()


@pytest.mark.parametrize("value", ["None", "'good'", "[0.5]", "{'loss': 1}"])
def test_a_bad_result_is_written_for_the_controller_to_judge(folder: Folder, value: str) -> None:
    ended = folder.run(f"import nni\nnni.get_next_parameter()\nnni.report_final_result({value})\n")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert folder.reports() == [{"final": eval(value)}]


def test_the_environment_is_read_when_called_and_not_on_import(folder: Folder) -> None:
    # As in a fork server: imported before there is a trial, then a trial, and then another.
    other = folder.root / "other"
    other.mkdir()
    written = json.loads((folder.path / "trial.json").read_text())
    written["id"], written["parameters"]["lr"] = 13, 0.125
    (other / "trial.json").write_text(json.dumps(written))
    ended = folder.run(
        "import os, sys, nni\n"
        f"os.environ['SHOAL_TRIAL_DIR'] = {str(folder.path)!r}\n"
        "print(nni.get_sequence_id(), nni.get_next_parameter()['lr'])\n"
        "nni.report_final_result(1)\n"
        f"os.environ['SHOAL_TRIAL_DIR'] = {str(other)!r}\n"
        "assert nni.get_current_parameter() is None\n"
        "print(nni.get_sequence_id(), nni.get_next_parameter()['lr'])\n"
        "nni.report_final_result(2)\n",
        alone=True,
    )
    assert (ended.stdout, ended.stderr) == ("12 0.5\n13 0.125\n", "")
    assert folder.reports() == [{"final": 1}]
    assert (other / "metrics.jsonl").read_text() == '{"final": 2}\n'


def test_lines_of_several_processes_stay_whole(folder: Folder) -> None:
    ended = folder.run(
        "import multiprocessing, nni\n"
        "def report(who):\n"
        "    for i in range(300):\n"
        "        nni.report_intermediate_result({'who': who, 'i': i, 'long': 'x' * 9000})\n"
        "if __name__ == '__main__':\n"
        "    nni.get_next_parameter()\n"
        "    fork = multiprocessing.get_context('fork')\n"
        "    workers = [fork.Process(target=report, args=(who,)) for who in range(4)]\n"
        "    for worker in workers: worker.start()\n"
        "    for worker in workers: worker.join()\n"
        "    nni.report_final_result(1)\n"
    )
    assert ended.stderr == ""
    *lines, last = folder.reports()
    assert last == {"final": 1}
    seen = [(line["intermediate"]["who"], line["intermediate"]["i"]) for line in lines]
    assert len(seen) == 1200
    for who in range(4):
        assert [i for w, i in seen if w == who] == list(range(300))


def test_the_ways_in_which_it_is_imported(folder: Folder) -> None:
    ended = folder.run(
        "import nni, nni.trial, nni.utils\n"
        "from nni import get_next_parameter, report_final_result, NoMoreTrialError\n"
        "from nni.trial import get_next_parameter as g, report_intermediate_result\n"
        "from nni.utils import merge_parameter\n"
        "from nni import *\n"
        "assert g is get_next_parameter\n"
        "assert nni.utils.merge_parameter is merge_parameter\n"
        "assert nni.__version__ == '3.0'\n"
        "try:\n    raise NoMoreTrialError('enough')\n"
        "except NoMoreTrialError as error:\n    assert error.errorinfo == str(error) == 'enough'\n"
    )
    assert ended.stderr == ""


def test_trace_dump_and_load(folder: Folder) -> None:
    ended = folder.run(
        "import io, nni\n"
        "class Scalar:\n    def item(self): return 2\n"
        "@nni.trace\nclass A: pass\n"
        "@nni.trace(kw_only=False)\ndef f(x): return x\n"
        "assert f(3) == 3 and isinstance(A(), A) and A.__name__ == 'A'\n"
        "assert nni.load(nni.dump({'a': [1, Scalar()]})) == {'a': [1, 2]}\n"
        "file = io.StringIO()\n"
        "nni.dump([1], file)\n"
        "file.seek(0)\n"
        "assert nni.load(fp=file) == [1]\n"
        "try:\n    nni.dump(object())\n"
        "except TypeError as error:\n    assert 'cannot write <object' in str(error)\n"
        "else:\n    raise AssertionError\n"
    )
    assert ended.stderr == ""


def test_stdout_is_left_alone_and_logging_may_be_turned_on(folder: Folder) -> None:
    ended = folder.run(
        "import logging, sys\n"
        "before = sys.stdout\n"
        "import nni\n"
        "nni.get_next_parameter()\n"
        "assert sys.stdout is before\n"
        "logging.getLogger('mine').info('unseen')\n"
        "nni.enable_global_logging()\n"
        "nni.enable_global_logging()\n"
        "logging.getLogger('mine').info('seen')\n"
        "nni.enable_global_logging(False)\n"
        "logging.getLogger('mine').info('unseen')\n"
    )
    assert ended.stderr == ""
    assert ended.stdout.count("seen") == 1
    assert ended.stdout.endswith("INFO (mine/MainThread) seen\n")


# outside of a trial

ALONE = (
    "import nni\n"
    "assert nni.get_next_parameter() == {}\n"
    "nni.report_intermediate_result(0.25)\n"
    "nni.report_intermediate_result({'default': 0.5})\n"
    "nni.report_final_result(0.75)\n"
    "print(nni.get_experiment_id(), nni.get_trial_id(), nni.get_sequence_id())\n"
)


def test_alone_there_are_no_parameters_and_results_are_printed(folder: Folder) -> None:
    ended = folder.run(ALONE, alone=True)
    assert ended.stdout.splitlines() == [
        "Intermediate result: 0.25  (Index 0)",
        'Intermediate result: {"default": 0.5}  (Index 1)',
        "Final result: 0.75",
        "STANDALONE STANDALONE 0",
    ]
    assert "RuntimeWarning: nni.get_next_parameter() outside of a trial" in ended.stderr
    assert "script.py:2" in ended.stderr
    assert not (folder.path / "metrics.jsonl").exists()


def test_alone_it_can_be_silenced(folder: Folder) -> None:
    code = "import nni\nnni.silence_stdout()\n" + ALONE
    assert folder.run(code, alone=True).stdout == "STANDALONE STANDALONE 0\n"


def test_a_trial_of_the_real_nni_is_not_trained_in_vain(folder: Folder) -> None:
    code = "import nni\nnni.get_next_parameter()\n"
    ended = folder.run(code, alone=True, NNI_PLATFORM="local")
    assert ended.returncode == 1
    assert "in a trial that shoal did not start" in ended.stderr


# where it is found


def test_it_needs_no_shoal_and_imports_the_standard_library_only(folder: Folder) -> None:
    code = (
        "import sys, nni, nni.utils, nni.trial\n"
        "nni.get_next_parameter()\n"
        "nni.report_final_result(1)\n"
        "try:\n    import shoal\n"
        "except ImportError:\n    pass\n"
        "else:\n    raise AssertionError('this interpreter has shoal: nothing is shown')\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names))\n"
    )
    ended = folder.run(code, "-S")
    assert ended.stderr == ""
    assert ended.stdout == "['__main__', 'nni']\n"
    assert folder.reports() == [{"final": 1}]


def test_it_is_found_before_an_installed_nni(folder: Folder) -> None:
    installed = folder.root / "site"
    (installed / "nni").mkdir(parents=True)
    (installed / "nni" / "__init__.py").write_text("raise RuntimeError('the real one')\n")
    (installed / "nni" / "experiment.py").write_text("")
    path = os.pathsep.join([str(PATH), str(installed)])
    ended = folder.run("import nni\nprint(nni.__file__)\n", PYTHONPATH=path)
    assert (ended.stdout, ended.stderr) == (f"{PATH / 'nni' / '__init__.py'}\n", "")


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("import nni.experiment", "ModuleNotFoundError"),
        ("from nni.experiment import Experiment", "ModuleNotFoundError"),
        ("from nni import retiarii", "ModuleNotFoundError"),
        ("from nni import Experiment", "ModuleNotFoundError"),
        ("import nni; nni.experiment", "AttributeError"),
        ("from nni.utils import OptimizeMode", "ModuleNotFoundError"),
        ("from nni.trial import get_everything", "ModuleNotFoundError"),
        ("import nni.utils; nni.utils.OptimizeMode", "AttributeError"),
        ("import nni.trial; nni.trial.get_everything", "AttributeError"),
        ("import nni.utils.more", "ModuleNotFoundError"),
    ],
)
def test_what_nni_has_besides_is_refused_with_the_reason(
    folder: Folder, statement: str, error: str
) -> None:
    ended = folder.run(statement + "\n")
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith(f"{error}: there is no nni.")
    assert "the trial side of NNI that shoal gives its trials" in last
    assert "nni.report_final_result" in last


def test_what_is_missing_elsewhere_is_none_of_its_business(folder: Folder) -> None:
    ended = folder.run(
        "import nni\n"
        "for module in (nni, nni.utils, nni.trial):\n"
        "    assert not hasattr(module, '__wrapped__')\n"
        "from nni.utils import *\nfrom nni.trial import *\n"
        "assert merge_parameter and get_next_parameter\n"
        "for name in ('nnice', 'json.nothing'):\n"
        "    try:\n        __import__(name)\n"
        "    except ModuleNotFoundError as error:\n        assert error.name == name, error\n"
        "    else:\n        raise AssertionError(name)\n"
    )
    assert ended.stderr == ""


# merge_parameter


@pytest.fixture
def merge_parameter() -> Any:
    # Under another name: importing `nni` into the test process would leave its finder there.
    for name, file in (("shim_nni", "__init__.py"), ("shim_nni.utils", "utils.py")):
        spec = importlib.util.spec_from_file_location(name, PATH / "nni" / file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        if name == "shim_nni.utils":
            spec.loader.exec_module(module)
    return module.merge_parameter


class Slots:
    __slots__ = ("lr",)
    lr: float


class Defaults:
    lr = 0.1


def test_it_merges_into_a_dict_and_a_namespace_in_place(merge_parameter: Any) -> None:
    new = {"lr": 0.5, "flag": True, "path": "/a/b", "many": [1]}
    old = {"lr": 0.1, "flag": False, "path": None, "many": [2, 3], "kept": 7}
    base = dict(old)
    assert merge_parameter(base, new) is base
    assert base == {**old, **new}
    namespace = Namespace(**old)
    assert merge_parameter(namespace, new) is namespace
    assert vars(namespace) == {**old, **new}


def test_it_merges_into_any_object(merge_parameter: Any) -> None:
    slots = Slots()
    slots.lr = 0.1
    assert merge_parameter(slots, {"lr": 0.5}).lr == 0.5
    assert merge_parameter(Defaults(), {"lr": 0.5}).lr == 0.5
    assert Defaults.lr == 0.1


def test_nothing_to_merge_is_fine(merge_parameter: Any) -> None:
    base = {"lr": 0.1}
    assert merge_parameter(base, None) is base
    assert merge_parameter(base, {}) == {"lr": 0.1}


def test_a_whole_number_passes_for_a_float(merge_parameter: Any) -> None:
    assert merge_parameter({"lr": 0.1}, {"lr": 1}) == {"lr": 1}


@pytest.mark.parametrize("make", [dict, Namespace])
def test_an_unknown_key_is_named_and_nothing_is_changed(merge_parameter: Any, make: Any) -> None:
    base = make(lr=0.1)
    with pytest.raises(ValueError, match="Key 'depth' not found in base parameters"):
        merge_parameter(base, {"lr": 0.5, "depth": 3})
    assert base == make(lr=0.1)


@pytest.mark.parametrize(
    ("old", "new"), [(1, 0.5), (1, True), (True, 1), (0.1, True), ("a", 1), (1, None), ([], (1,))]
)
def test_another_type_is_refused_by_name(merge_parameter: Any, old: object, new: object) -> None:
    theirs, ours = type(new).__name__, type(old).__name__
    with pytest.raises(TypeError, match=rf"Expected 'x' .* '{ours}', but found '{theirs}'"):
        merge_parameter({"x": old}, {"x": new})
