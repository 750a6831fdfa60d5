"""The house: what a newcomer relies on is there, and stays true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from dccrn_lib.results.tables import stale_tables


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


def test_the_files_that_packaging_names_are_there(root: Path):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    included = re.findall(r"^include (.+)$", (root / "MANIFEST.in").read_text(), re.MULTILINE)
    names = [project["readme"], *project["license-files"], *" ".join(included).split()]
    assert [name for name in names if not any(path.stat().st_size for path in root.glob(name))] == []


def test_ci_calls_make_test_and_is_executable(root: Path):
    assert "make test" in (root / ".ci/run").read_text()
    assert (root / ".ci/run").stat().st_mode & 0o100
    assert ".ci/run" in (root / ".github/workflows/ci.yml").read_text()


def make_targets(root: Path) -> dict[str, str]:
    """Targets that `make help` lists, with their lines; itself apart."""
    shown = subprocess.run(["make", "-s", "-C", str(root), "help"], capture_output=True, text=True, check=True).stdout
    return {name: line for name, line in re.findall(r"^  make (\S+)\s+(\S.*)$", shown, re.MULTILINE) if name != "help"}


def test_every_make_target_has_a_row_in_the_guide(root: Path):
    rows = re.findall(r"^\| `make ([a-z-]+)", (root / "docs/guide.md").read_text(), re.MULTILINE)
    assert sorted(set(rows)) == sorted(make_targets(root))
    assert len(rows) == len(set(rows))


@pytest.mark.parametrize("target", ["lint", "test", "unit", "browser", "demo", "book", "soak", "results"])
def test_the_guide_says_all_that_a_target_runs(target: str, root: Path):
    (row,) = re.findall(rf"^\| `make {target}`.*$", (root / "docs/guide.md").read_text(), re.MULTILINE)
    steps = subprocess.run(["make", "-n", "-C", str(root), target], capture_output=True, text=True, check=True).stdout
    ours = re.compile(r'/bin/(?:python|lint-imports)"')  # of any VENV
    commands = [line for line in steps.splitlines() if ours.search(line) and not re.search("-m (pip|venv)", line)]
    parts = re.findall(
        r"-m ([a-z][\w.]+)|bin/(lint-imports)|(--check)|(--nbval-lax)|((?:tests|docs)/[\w/]+)", "\n".join(commands)
    )
    named = {part for group in parts for part in group if part}
    assert named and [part for part in sorted(named) if part not in row] == []


def test_every_target_that_a_document_names_exists(root: Path):
    known = {*make_targets(root), *re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE)}
    for document in [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").glob("*.md")]:
        named = re.findall(r"(?:`|^    )make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= known, document.name


def test_lint_runs_the_examples_in_docstrings(root: Path):
    steps = subprocess.run(["make", "-n", "-C", str(root), "lint"], capture_output=True, text=True, check=True).stdout
    assert all(tool in steps for tool in ("ruff check", "ruff format", "lint-imports", "pyright", "test_doctests.py"))


def test_the_quick_tests_are_of_every_package_with_quick_ones(root: Path):
    quick = re.search(r"^QUICK = ((?:.*\\\n)*.*)$", (root / "Makefile").read_text(), re.MULTILINE)[1]
    paths = [root / name for name in quick.replace("\\", " ").split()]
    assert [path for path in paths if not path.exists()] == []
    packages = {path.name for path in (root / "dccrn_lib").iterdir() if (root / "tests" / path.name).is_dir()}
    slow = {"lessons", "experiments", "enhancement"}  # they run notebooks, trainings, and whole files
    assert packages - slow == {path.relative_to(root / "tests").parts[0] for path in paths} & packages


def test_make_says_what_is_missing_without_a_python(root: Path, tmp_path: Path):
    command = ["make", "-C", str(root), "install", "PYTHON=no-such-python", f"VENV={tmp_path}/venv"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "error: no-such-python is not Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_make_warns_where_pesq_cannot_be_compiled(root: Path, tmp_path: Path):
    command = ["make", "-C", str(root), "-n", "install", f"PYTHON={sys.executable}", f"VENV={tmp_path}/venv"]
    plan = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (check,) = [line for line in plan.splitlines() if line.startswith("case ") and "pesq" in line]
    for compiler, warned in (("true", False), ("no-such-compiler", True)):
        done = subprocess.run(["sh", "-c", check], capture_output=True, text=True, env={**os.environ, "CC": compiler})
        if (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
            assert ("build-essential python3-dev" in done.stderr) is warned
        assert done.returncode == 0  # it goes on all the same: there may be a wheel


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


def test_the_oldest_versions_are_the_lower_ends_of_all_dependencies(root: Path):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert set(exact(root / ".github/oldest.txt")) == {Requirement(r).name for r in project["dependencies"]}
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
    """No home of a user, and not the folder of this checkout."""
    # written so that this file does not hold what it looks for
    path = re.compile(r"/(?:home|root|Users)/\w|" + re.escape(f"{root}/"))
    violations = {}
    for file in tracked(root):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            if path.search(re.sub(r"https?://\S+|base64,[A-Za-z0-9+/=]+|\"[A-Za-z0-9+/=\\n]{200,}\"", "", line)):
                violations[f"{file.relative_to(root)}:{number}"] = line.strip()[:80]
    assert violations == {}


def test_text_files_have_tidy_ends_of_lines(root: Path):
    """One newline at the end of a file, no spaces at the end of a line."""
    untidy = []
    for file in tracked(root):
        text = file.read_bytes().decode("utf-8")
        loose = file.suffix not in {".ipynb", ".json", ".jsonl"} and re.search(r"[ \t\r]$", text, re.MULTILINE)
        if text and (loose or not text.endswith("\n") or text.endswith("\n\n")):
            untidy.append(str(file.relative_to(root)))
    assert untidy == []


def test_the_citation_and_the_package_agree(root: Path):
    from dccrn_lib import __version__

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = (root / "CITATION.cff").read_text()
    assert re.search(rf"^version: {re.escape(__version__)}$", citation, re.MULTILINE)
    assert [f'  - name: "{author["name"]}"' in citation for author in project["authors"]] == [True]
    assert f"## {__version__}" in (root / "CHANGELOG.md").read_text()


def test_ci_runs_every_python_that_the_package_names(root: Path):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    tested = re.findall(r"^        python: (.+)$", (root / ".github/workflows/ci.yml").read_text(), re.MULTILINE)
    assert named and [sorted(re.findall(r"3\.\d+", line)) for line in tested] == [named]
    image = re.search(r"python:(3\.\d+)", (root / ".devcontainer/devcontainer.json").read_text())[1]
    assert image in named


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
    rows = re.findall(r"^\| (`[^|]*) \| \d \| (\d+) \|", text, re.MULTILINE)
    assert sorted(int(samples) for _, samples in rows) == [399, 999]
    for names, samples in rows:
        for name in re.findall(r"`(\w+)`", names):
            config = PRESETS[name]
            expected = config.stft.window_length - 1 + config.lookahead_frames * config.stft.hop_length
            assert int(samples) == expected, name


def test_what_is_not_known_is_not_called_missing_in_the_paper(root: Path):
    """Nobody here could read the papers' full text: "not known to us" never becomes "the paper does not print"."""
    old = re.compile(
        r"paper[^.\n]{0,60}(does not|doesn.t|do not) (print|state|report|say)|not printed|prints no |paper leaves"
        r"|paper[^.\n]{0,30} (is|are|stays?|remains?) silent|without saying so|reports [^.\n]{0,40}without ",
        re.I,
    )
    for wrong in ("The paper does not print $p$.", "where a paper is silent", "reports PESQ without saying so"):
        assert old.search(wrong), wrong
    public = ("README.md", "docs", "notebooks", "dccrn_lib", "weights")
    shown = [
        p for p in tracked(root) if p.relative_to(root).parts[0] in public and p.suffix in (".md", ".ipynb", ".py")
    ]
    found = [(str(p.relative_to(root)), m.group()) for p in shown for m in old.finditer(p.read_text(encoding="utf-8"))]
    assert found == []


def test_make_refuses_other_versions_than_its_environment_holds(root: Path, tmp_path: Path):
    """They would not be installed, and the tests of the old ones would be taken for theirs."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text("#!/bin/sh\necho 3.11\n")
    (venv / "bin" / "python").chmod(0o755)
    (venv / ".installed").write_text("constraints.txt\n")
    command = ["make", "-n", "-C", str(root), "library", f"VENV={venv}"]
    for wish, said in (("CONSTRAINTS=.github/oldest.txt", "holds the versions of"), ("PYTHON=false", "another Python")):
        done = subprocess.run([*command, wish], capture_output=True, text=True)
        assert done.returncode == 2 and said in done.stderr and "VENV=" in done.stderr
    assert "pytest" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_make_browser_fails_without_a_browser(root: Path):
    command = ["make", "-n", "-C", str(root), "browser", f"PY={sys.executable}"]
    steps = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (check,) = [line for line in steps.splitlines() if "browser_executable" in line]
    environment = {name: value for name, value in os.environ.items() if name != "DCCRN_BROWSER"} | {"PATH": "/nowhere"}
    done = subprocess.run(["/bin/sh", "-c", check], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "no Chromium found" in done.stderr
