"""The house: what a newcomer relies on is there, and stays true."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from dccrn_lib.results.tables import stale_tables

FILES = [
    "README.md",
    "LICENSE",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    "pyproject.toml",
    "environment.yml",
    "Makefile",
    ".ci/run",
    ".github/workflows/ci.yml",
    "docs/ledger.md",
    "docs/latency.md",
]
TARGETS = ["tutorial", "test", "lab", "notebooks", "bench", "results", "train-real", "clean"]


def tracked(root: Path) -> list[Path]:
    """Text files of the repository; every file of the folder tree when it is not one."""
    try:
        command = ["git", "-C", str(root), "ls-files", "-z"]
        names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    suffixes = {".py", ".md", ".toml", ".yml", ".cff", ".json", ".jsonl", ".txt", ".ipynb", ".sh", ""}
    paths = [root / name for name in names if name]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


@pytest.mark.parametrize("name", FILES)
def test_file_is_there(name: str, root: Path):
    assert (root / name).stat().st_size > 0


def test_ci_calls_make_test_and_is_executable(root: Path):
    assert "make test" in (root / ".ci/run").read_text()
    assert (root / ".ci/run").stat().st_mode & 0o100
    assert ".ci/run" in (root / ".github/workflows/ci.yml").read_text()


@pytest.mark.parametrize("target", TARGETS)
def test_make_target_is_documented_and_named_in_the_readme(target: str, root: Path):
    shown = subprocess.run(["make", "-s", "-C", str(root), "help"], capture_output=True, text=True).stdout
    assert re.search(rf"^  make {target}\s+\S", shown, re.MULTILINE)
    assert any(f"make {target}" in (root / name).read_text() for name in ("README.md", "docs/guide.md"))


def test_lint_runs_the_examples_in_docstrings(root: Path):
    steps = subprocess.run(["make", "-n", "-C", str(root), "lint"], capture_output=True, text=True, check=True).stdout
    assert all(tool in steps for tool in ("ruff check", "ruff format", "lint-imports", "pyright", "test_doctests.py"))


def test_make_says_what_is_missing_without_a_python(root: Path, tmp_path: Path):
    command = ["make", "-C", str(root), "install", "PYTHON=no-such-python", f"VENV={tmp_path}/venv"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: no-such-python is not Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def requirements(root: Path) -> list[Requirement]:
    """What the package and its extras ask for."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = {name: wanted for name, wanted in project["optional-dependencies"].items() if name != "all"}
    return [Requirement(r) for wanted in (project["dependencies"], *extras.values()) for r in wanted]


def exact(path: Path) -> dict[str, list[str]]:
    """The exact versions of a constraints file, by package; several where they depend on Python."""
    versions: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            versions.setdefault(requirement.name, []).append(specifier.version)
    return versions


@pytest.mark.parametrize("name", ["constraints.txt", ".github/oldest.txt"])
def test_exact_versions_lie_in_the_ranges(name: str, root: Path):
    versions = exact(root / name)
    wrong = [str(r) for r in requirements(root) if not all(v in r.specifier for v in versions.get(r.name, []))]
    assert wrong == []
    assert versions["torch"] == versions["torchaudio"]


def test_every_requirement_has_a_lower_end_and_an_exact_version(root: Path):
    versions = exact(root / "constraints.txt")
    for requirement in requirements(root):
        assert any(s.operator == ">=" for s in requirement.specifier), requirement
        assert requirement.name in versions, requirement


def test_the_oldest_versions_are_the_lower_ends(root: Path):
    lower = {r.name: s.version for r in requirements(root) for s in r.specifier if s.operator == ">="}
    for name, (version,) in exact(root / ".github/oldest.txt").items():
        assert Version(version) in SpecifierSet(f"=={lower[name]}.*"), name


def test_versions_are_nowhere_else(root: Path):
    names = {requirement.name for requirement in requirements(root)}
    pin = re.compile(rf"\b({'|'.join(map(re.escape, sorted(names)))})\s*[=~]=\s*\d")
    allowed = {"pyproject.toml", "constraints.txt", "oldest.txt"}
    others = [p for p in tracked(root) if p.suffix not in {".ipynb", ".json"} and p.name not in allowed]
    assert [str(p.relative_to(root)) for p in others if pin.search(p.read_text(encoding="utf-8"))] == []


def test_environments_install_the_extras_that_make_installs(root: Path):
    extras = re.search(r"^EXTRAS\s*\?= (\S+)$", (root / "Makefile").read_text(), re.MULTILINE)[1]
    known = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)
    environment = (root / "environment.yml").read_text()
    assert f"-e .[{extras}]" in environment and "-c constraints.txt" in environment


def test_without_cuda_torch_comes_from_the_index_of_cpu_wheels(root: Path, tmp_path: Path):
    command = ["make", "-n", "-C", str(root), "install", "TORCH=cpu", f"VENV={tmp_path}/venv"]
    steps = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert '--no-deps --index-url "https://download.pytorch.org/whl/cpu"' in steps
    assert steps.index("--index-url") < steps.index('-c "constraints.txt" -e')


def test_an_unknown_kind_of_torch_is_refused(root: Path, tmp_path: Path):
    command = ["make", "-C", str(root), "install", "TORCH=gpu", f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and 'TORCH is "cpu" or empty, not "gpu"' in done.stderr
    assert not (tmp_path / "venv").exists()


def test_no_paths_of_a_machine_in_the_repository(root: Path):
    # written so that this file does not hold what it looks for
    path = re.compile(r"/(?:home|root|Users|work|farm)/\w|/tmp/bash" + "_jobs")
    found = {}
    for file in tracked(root):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if path.search(re.sub(r"https?://\S+|base64,[A-Za-z0-9+/=]+|\"[A-Za-z0-9+/=\\n]{200,}\"", "", line)):
                found[f"{file.relative_to(root)}:{number}"] = line.strip()[:80]
    assert found == {}


def test_the_package_fits_on_one_screen(root: Path):
    rooms = [p.name for p in (root / "dccrn_lib").iterdir() if p.name != "__pycache__"]
    assert len(rooms) <= 16, sorted(rooms)


def test_every_test_that_the_ledger_names_exists(root: Path):
    text = (root / "docs/ledger.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert named
    missing = [f"{file}::{test}" for file, test in named if f"def {test}(" not in (root / file).read_text()]
    assert missing == []


def test_relative_links_of_the_documents_lead_somewhere(root: Path):
    documents = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")]
    broken = []
    for document in documents:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", target) and not (document.parent / target).exists():
                broken.append(f"{document.name}: {target}")
    assert broken == []


def test_tables_are_those_of_the_result_files(root: Path):
    assert {p.name: stale_tables(p) for p in [root / "README.md", *(root / "docs").glob("*.md")]} == {
        p.name: [] for p in [root / "README.md", *(root / "docs").glob("*.md")]
    }


def test_latency_document_agrees_with_the_formula(root: Path):
    from dccrn_lib.networks.presets import PRESETS

    text = (root / "docs/latency.md").read_text()
    for names, samples in re.findall(r"^\| (`.*?`) \| \d \| (\d+) \|", text, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", names):
            config = PRESETS[name]
            expected = config.stft.window_length - 1 + config.lookahead_frames * config.stft.hop_length
            assert int(samples) == expected, name
    assert "| 999 |" in text and "| 399 |" in text


def test_what_is_not_known_is_not_called_missing_in_the_paper(root: Path):
    """Nobody here could read the papers' full text: "not known to us" never becomes "the paper does not print"."""
    old = re.compile(
        r"paper[^.\n]{0,60}(does not|doesn.t|do not) (print|state|report|say)|not printed|prints no |paper leaves", re.I
    )
    assert old.search("The paper does not print $p$.")
    public = ("README.md", "docs", "notebooks", "dccrn_lib", "weights")
    shown = [
        p for p in tracked(root) if p.relative_to(root).parts[0] in public and p.suffix in (".md", ".ipynb", ".py")
    ]
    found = [(str(p.relative_to(root)), m.group()) for p in shown for m in old.finditer(p.read_text(encoding="utf-8"))]
    assert found == []
