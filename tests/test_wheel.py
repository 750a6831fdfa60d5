"""A wheel, installed by pip far from any checkout, brings what the public names and the command need."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

NEEDED = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "dccrn_lib", "weights", "data/sentences")


def _setuptools_is_new_enough() -> bool:
    try:
        return int(metadata.version("setuptools").partition(".")[0]) >= 77
    except metadata.PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment into which pip has installed nothing but the wheel.

    The dependencies are those of the running environment, borrowed by path, so that pip checks the wheel's ranges against
    them and downloads nothing; the editable install there stays out of sight.
    """
    if not _setuptools_is_new_enough():
        pytest.skip("setuptools 77 or newer, which builds the wheel, comes with the extra dev")
    root, source = Path(__file__).resolve().parents[1], tmp_path_factory.mktemp("source")
    for name in NEEDED:
        if (root / name).is_dir():
            shutil.copytree(root / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "uformer.safe*"))
        else:
            shutil.copyfile(root / name, source / name)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('wheels'))"
    (source / "wheels").mkdir()
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=300)
    (wheel,) = (source / "wheels").glob("*.whl")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
    packages = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    Path(packages, "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    found = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    install = [sys.executable, "-m", "pip", "--python", str(found), "install", "--no-index", "--quiet", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return found


def run(python: Path, *command: str) -> subprocess.CompletedProcess:
    """A command of the environment's ``bin`` in an empty folder."""
    away = python.parents[1] / "away"
    away.mkdir(exist_ok=True)
    hidden = ("DCCRN_", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    program, *arguments = command
    return subprocess.run(
        [str(python.parent / program), *arguments],
        cwd=away,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_students_weights_come_with_it(python: Path):
    code = (
        "import dccrn_lib, torch; model = dccrn_lib.load_model('distil_dccrn');"
        "print(dccrn_lib.__file__, dccrn_lib.count_parameters(model), tuple(model(torch.zeros(1, 800)).shape))"
    )
    done = run(python, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    file, parameters, shape = done.stdout.split(maxsplit=2)
    assert Path(file).is_relative_to(python.parents[1]) and (parameters, shape.strip()) == ("1126413", "(1, 800)")


def test_the_installed_command_enhances_a_file(python: Path, root: Path, tmp_path: Path):
    noisy = next((root / "data/demo/noisy").glob("*.ogg"))
    done = run(python, "dccrn", "enhance", str(noisy), str(tmp_path / "out.wav"), "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.wav").stat().st_size > 1000


def test_the_installed_command_generates_a_corpus(python: Path, tmp_path: Path):
    pytest.importorskip("espeakng_loader", reason="speech is generated with the extra speech")
    done = run(python, "dccrn", "corpus", "synth", "--hours", "0.01", "--out", str(tmp_path / "corpus"), "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "corpus/speech.jsonl").stat().st_size > 100


def test_sentences_come_with_it_and_corpora_stay_out_of_the_package(python: Path):
    code = (
        "from dccrn_lib.corpus.synthesis.speech import load_sentences; from dccrn_lib.runtime import paths;"
        "print(len(load_sentences()), paths.generated_dir(), paths.runs_dir(), paths.results_dir())"
    )
    done = run(python, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    languages, *folders = done.stdout.split()
    assert int(languages) == 13
    assert not any("site-packages" in folder for folder in folders)


def test_type_checkers_find_its_annotations(python: Path):
    done = run(python, "python", "-c", "import dccrn_lib; print(dccrn_lib.__path__[0])")
    assert Path(done.stdout.strip(), "py.typed").is_file()


def test_other_weights_are_named_with_where_to_get_them(python: Path):
    done = run(python, "dccrn", "enhance", "x.wav", "--out", "o", "--model", "uformer")
    assert done.returncode == 1
    assert "shipped: distil_dccrn;" in done.stderr and "weights/ of the repository" in done.stderr
