"""A wheel, unpacked far from any checkout, brings what the public names need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
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
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the unpacked wheel."""
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
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(site: Path, *command: str) -> subprocess.CompletedProcess:
    """Python in an empty folder, with the wheel's package first."""
    away = site.parent / "away"
    away.mkdir(exist_ok=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DCCRN_")} | {"PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *command], cwd=away, env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_students_weights_come_with_it(site: Path):
    code = (
        "import dccrn_lib, torch; model = dccrn_lib.load_model('distil_dccrn');"
        "print(dccrn_lib.__file__, dccrn_lib.count_parameters(model), tuple(model(torch.zeros(1, 800)).shape))"
    )
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    file, parameters, shape = done.stdout.split(maxsplit=2)
    assert Path(file).is_relative_to(site) and (parameters, shape.strip()) == ("1126413", "(1, 800)")


def test_files_are_enhanced_far_from_a_checkout(site: Path, root: Path, tmp_path: Path):
    noisy = next((root / "data/demo/noisy").glob("*.ogg"))
    done = run(site, "-m", "dccrn_lib", "enhance", str(noisy), "--out", str(tmp_path), "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / noisy.name).stat().st_size > 1000


def test_sentences_come_with_it_and_corpora_stay_out_of_the_package(site: Path):
    code = (
        "from dccrn_lib.corpus.synthesis.speech import load_sentences; from dccrn_lib.runtime import paths;"
        "print(len(load_sentences()), paths.generated_dir(), paths.runs_dir(), paths.results_dir())"
    )
    done = run(site, "-c", code)
    assert done.returncode == 0, done.stderr
    languages, *folders = done.stdout.split()
    assert int(languages) == 13
    assert not any(Path(folder).is_relative_to(site) for folder in folders)


def test_type_checkers_find_its_annotations(site: Path):
    assert (site / "dccrn_lib" / "py.typed").is_file()


def test_other_weights_are_named_with_where_to_get_them(site: Path):
    done = run(site, "-m", "dccrn_lib", "enhance", "x.wav", "--out", "o", "--model", "uformer")
    assert done.returncode == 1
    assert "shipped: distil_dccrn;" in done.stderr and "weights/ of the repository" in done.stderr
