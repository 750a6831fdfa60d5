# Distil-DCCRN: every target installs what it needs into .venv first. `make help` lists them.
# Needs Python 3.11 or newer with venv and its headers, a C compiler and the package registry; nothing else.
# Another interpreter: make test PYTHON=/path/to/python3.12 VENV=.venv-312     Another profile: make tutorial PROFILE=gpu
# Without the CUDA libraries (1 GB instead of 5): make install TORCH=cpu, before any other target

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install tutorial test check quick lint lesson-lint unit library nbval suite mutations faults soak browser demo book lab notebooks bench results badges train-real clean

VENV    ?= .venv
EXTRAS  ?= notebooks,metrics,speech,export,dev
# exact versions; CONSTRAINTS=/dev/null takes the newest that pyproject.toml allows
CONSTRAINTS ?= constraints.txt
# cpu: torch and torchaudio from PyTorch's index of CPU wheels
TORCH   ?=
CPU_WHEELS ?= https://download.pytorch.org/whl/cpu
PROFILE ?= quick
OUT     ?= runs/$(PROFILE)
NPROC   ?= 1
# processes that share the tests, each on one thread
JOBS    ?= 2
ONLY    ?=
PYTHON  ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo "$$p"; break; }; done)

# Whether a C extension can be built for this Python: its header and its compiler are there.
COMPILES = import os, shutil, sys, sysconfig as s; cc = (os.environ.get("CC") or s.get_config_var("CC") or "cc").split()[0]; \
	sys.exit(not (shutil.which(cc) and os.path.exists(os.path.join(s.get_paths()["include"], "Python.h"))))

PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed

# What VENV holds stays: another CONSTRAINTS or PYTHON would change nothing in it, and the tests of other versions would be those of the old ones.
HELD := $(if $(wildcard $(STAMP)),$(or $(shell cat "$(STAMP)"),constraints.txt))
ifneq ($(HELD),)
ifneq ($(HELD),$(CONSTRAINTS))
$(error $(VENV) holds the versions of $(HELD), not those of $(CONSTRAINTS): add VENV=.venv-other to make them a folder of their own)
endif
ifneq ($(origin PYTHON),file)
MINOR := import sys; print("%d.%d" % sys.version_info[:2])
ifneq ($(shell "$(PYTHON)" -c '$(MINOR)'),$(shell "$(PY)" -c '$(MINOR)'))
$(error $(VENV) was made with another Python than $(PYTHON): add VENV=.venv-other to make it a folder of its own)
endif
endif
endif

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

$(STAMP): pyproject.toml $(filter-out /dev/null,$(CONSTRAINTS))
	@if [ -z "$(PYTHON)" ]; then echo "error: no Python 3.11 or newer with venv found; install one or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "error: $(PYTHON) is not Python 3.11 or newer with venv (on Debian: apt install python3-venv)" >&2; exit 1; }
	@case ",$(EXTRAS)," in *,metrics,*) "$(PYTHON)" -c '$(COMPILES)' || echo "warning: pesq is compiled while it is installed, and no C compiler or no Python.h is found: on Debian apt install build-essential python3-dev, on a Mac xcode-select --install" >&2;; esac
	@[ -z "$(TORCH)" ] || [ "$(TORCH)" = cpu ] || { echo "error: TORCH is \"cpu\" or empty, not \"$(TORCH)\"" >&2; exit 2; }
	@[ -x "$(PY)" ] || "$(PYTHON)" -m venv "$(VENV)"
	@if [ "$(TORCH)" = cpu ]; then \
		echo "installing into $(VENV) without CUDA libraries: about 1 GB, a few minutes"; \
		grep -E '^torch(audio)?[=]=' "$(CONSTRAINTS)" > "$(VENV)/torch.txt" || \
			sed -nE 's/^ +"(torch(audio)?>[^"]+)",/\1/p' pyproject.toml > "$(VENV)/torch.txt"; \
		"$(PY)" -m pip install --quiet --disable-pip-version-check --no-deps --index-url "$(CPU_WHEELS)" -r "$(VENV)/torch.txt"; \
	else echo "installing into $(VENV): about 5 GB, a few minutes (make install TORCH=cpu: 1 GB, without CUDA libraries)"; fi
	"$(PY)" -m pip install --quiet --disable-pip-version-check -c "$(CONSTRAINTS)" -e ".[$(EXTRAS)]"
	@echo "$(CONSTRAINTS)" > "$(STAMP)"

install: $(STAMP)  ## create .venv and install the package with its extras (about 5 GB, mostly torch; TORCH=cpu: 1 GB)

tutorial: $(STAMP)  ## run all notebooks at PROFILE=quick into runs/quick, with one HTML report
	"$(PY)" -m dccrn_lib run-notebooks --profile "$(PROFILE)" --out "$(OUT)"

test: lint suite  ## ruff, import directions, types, examples in docstrings, the tests, and the committed notebooks under nbval

lint: $(STAMP)  ## ruff (rules and format), import directions, types (pyright), and the examples in docstrings
	"$(PY)" -m ruff check .
	"$(PY)" -m ruff format --check .
	"$(VENV)/bin/lint-imports" --no-cache
	"$(PY)" -m pyright --pythonpath "$(PY)"
	"$(PY)" -m pytest -q tests/test_doctests.py

# What the quick tests leave out: processes, notebooks, whole trainings, the generated corpus, ONNX.
QUICK = tests/test_public_names.py tests/test_house.py tests/test_losses.py tests/audio tests/cli tests/distillation tests/networks tests/results \
	tests/corpus/test_decoded.py tests/corpus/test_manifest.py tests/corpus/test_mixing.py tests/corpus/test_preparation.py tests/evaluation/test_groups.py \
	tests/runtime/test_locks.py tests/runtime/test_sinks.py tests/training/test_muon.py tests/training/test_profiles.py

check: $(STAMP)  ## lint and the quick tests, side by side: under a minute, for while you work
	@$(MAKE) --no-print-directory --jobs 2 $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) lint quick

quick: $(STAMP)
	"$(PY)" -m pytest -q -m "not slow" $(QUICK)

lesson-lint: $(STAMP)  ## advice for the authors of lessons (length, words per line of code, stated times); never fails
	@"$(PY)" -m tests.contract

# A file stays with one process: what its tests share is made once.
PYTEST = OMP_NUM_THREADS=1 "$(PY)" -m pytest --numprocesses "$(JOBS)" --dist loadfile

unit: $(STAMP)  ## the tests without the notebooks
	$(PYTEST) tests

# For other versions than those of constraints.txt: without the house's own rules and the lessons, whose digits belong to them.
library: $(STAMP)  ## the library's tests alone, for other versions (CONSTRAINTS=.github/oldest.txt or /dev/null)
	$(PYTEST) tests --ignore tests/lessons --ignore tests/browser --ignore tests/test_wheel.py --ignore tests/test_house.py

# The lesson that trains comes first, so that one process takes it while the other goes through the rest.
LONGEST = notebooks/05_distillation.ipynb
LESSONS = $(sort $(wildcard notebooks/*.ipynb))
# It trains in full in `make tutorial` and takes that training where there is one; else 80 steps of each network, in a temporary folder.
SHORT = $(if $(wildcard runs/quick/results/distillation_quick_seed0.json),,-p tests.lesson_parameters --lesson-parameters 05_distillation:train_steps=80)
NBVAL = $(PYTEST) --no-loadscope-reorder --nbval-lax --nbval-current-env $(SHORT) $(filter $(LONGEST),$(LESSONS))
nbval: $(STAMP)  ## the committed notebooks: they run, and their checked outputs are unchanged
	$(NBVAL) $(filter-out $(LONGEST),$(LESSONS))

suite: $(STAMP)  ## unit and nbval in one: the tests run while the lesson trains
	$(NBVAL) tests $(filter-out $(LONGEST),$(LESSONS))

mutations: $(STAMP)  ## break the library in known ways: a unit test and a notebook check must see each (minutes)
	"$(PY)" -m tests.mutations

faults: $(STAMP)  ## take every mend of the 36 faults out again: its test must notice, into results/faults.json (minutes)
	"$(PY)" -m tests.faults --json results/faults.json

soak: $(STAMP)  ## try to break it: kills, full disks, damaged inputs, load, into results/reliability.json (most of an hour)
	"$(PY)" -m tests.soak $(SOAK_ARGS)

browser: $(STAMP)  ## the lessons' widgets, the report and the demo in a headless Chromium (DCCRN_BROWSER=/path names another)
	"$(PY)" -m pip install --quiet --disable-pip-version-check -c "$(CONSTRAINTS)" -e ".[browser]"
	@"$(PY)" -c 'import sys; from tests.chromium import browser_executable; sys.exit(None if browser_executable() else "error: no Chromium found: install it (Debian: apt install chromium) or name one in DCCRN_BROWSER")'
	"$(PY)" -m pytest tests/browser tests/demo -m browser

demo: $(STAMP)  ## the denoiser for the browser into build/demo (needs Node.js, here or in .venv, and the npm registry)
	"$(PY)" docs/book/demo/bundle.py --out build/demo

book: demo  ## the site with lessons, reference and demo into build/book; it opens from disk
	"$(PY)" -m pip install --quiet --disable-pip-version-check -c "$(CONSTRAINTS)" -e ".[book]"
	"$(PY)" docs/book/make.py --out build/book

badges: $(STAMP)  ## of README.md (CI, Colab, Binder, site), for your copy: make badges REPOSITORY=owner/name
	"$(PY)" docs/book/badges.py $(REPOSITORY)

lab: $(STAMP)  ## open JupyterLab on the notebooks
	"$(PY)" -m jupyterlab --ServerApp.root_dir=notebooks

notebooks: $(STAMP)  ## execute the committed notebooks again where they lie and clean them (ONLY=01,02)
	"$(PY)" -m dccrn_lib run-notebooks --in-place $(if $(ONLY),--only "$(ONLY)")

bench: $(STAMP)  ## measure speed and memory into results/bench.json
	"$(PY)" -m dccrn_lib bench --json results/bench.json

results: $(STAMP)  ## write the tables of README.md and docs/ again from results/*.json, and docs/commands.md
	"$(PY)" -m dccrn_lib commands --out docs/commands.md
	"$(PY)" -m dccrn_lib results README.md docs/*.md

# The four trainings of weights/: the teacher first, then the student with AT-KL, the student alone, DCCRN-E.
RUN      = "$(PY)" $(if $(filter-out 1,$(NPROC)),-m torch.distributed.run --nproc-per-node $(NPROC)) -m dccrn_lib train
REAL     = --profile "$(REAL_PROFILE)" --speech "$(SPEECH)" --noise "$(NOISE)" $(if $(RIR),--rir "$(RIR)") --resume $(TRAIN_ARGS)
REAL_OUT     ?= runs/real
REAL_PROFILE ?= gpu
TRAIN_ARGS   ?=

train-real: $(STAMP)  ## train all four weights: SPEECH=... NOISE=... [RIR=...] manifests (NPROC=4, REAL_PROFILE=cpu)
	@if [ -z "$(SPEECH)" ] || [ -z "$(NOISE)" ]; then echo "error: name the manifests: make train-real SPEECH=speech.jsonl NOISE=noise.jsonl RIR=rir.jsonl" >&2; exit 2; fi
	$(RUN) $(REAL) --model uformer --out "$(REAL_OUT)/uformer"
	$(RUN) $(REAL) --model distil_dccrn --method at_kl --teacher "$(REAL_OUT)/uformer/best.safetensors" --out "$(REAL_OUT)/distil_dccrn"
	$(RUN) $(REAL) --model distil_dccrn --out "$(REAL_OUT)/student_alone"
	$(RUN) $(REAL) --model dccrn_e --out "$(REAL_OUT)/dccrn_e"

clean:  ## remove .venv, generated corpora, runs and caches
	rm -rf "$(VENV)" runs data/generated build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
