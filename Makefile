# Every target does its own set-up: a fresh clone needs nothing but python3 (3.11 or newer) and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS_VENV := .venv-peers
PEERS := $(PEERS_VENV)/.ready
RUNS := runs/experiments

# Tests and benchmarks share the cores as commands of expander do: docs/performance.md, "Threads and memory of a whole run".
export OMP_WAIT_POLICY ?= passive
# pip does not compile the whole of what it installs; Python compiles what it imports, and must then be allowed to keep it.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := -m pip install --quiet --no-compile

.PHONY: hostile demo experiments test peers docs lint format bench browser clean

demo: $(READY)  ## a real model, four dictionaries, and runs/demo/report.html; goes on where it was stopped
	$(BIN)/expander demo

experiments: $(READY)  ## every study on planted data, and runs/experiments/report.html; goes on where it was stopped
	$(BIN)/expander study frontier --synthetic --out $(RUNS)/frontier
	$(BIN)/expander study supports --synthetic --out $(RUNS)/supports
	$(BIN)/expander study amortisation --synthetic --out $(RUNS)/amortisation
	$(BIN)/expander study recovery --out $(RUNS)/recovery
	$(BIN)/expander study coding --out $(RUNS)/coding
	$(BIN)/expander study scaling --synthetic --out $(RUNS)/scaling
	$(BIN)/expander study page $(addprefix $(RUNS)/,frontier supports amortisation recovery coding scaling) --out $(RUNS)/report.html

test: $(READY) browser peers  ## the whole test suite, on every core
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

# As many processes as cores, so one thread each; tests of what threads share ask for more themselves.
test peers: export OMP_NUM_THREADS := 1

peers: $(PEERS)  ## what other libraries make of our folders, and we of theirs
	$(PEERS_VENV)/bin/python -m pytest tests/peers

docs: $(READY)  ## the site of everything in docs/, with a reference of commands and names, into build/docs/site
	$(BIN)/python docs/build_site.py build/docs

# How many minutes, and of what everything is drawn that is tried.
BUDGET ?= 10
SEED ?= 0
hostile: $(READY)  ## wrong calls, kills, damage, scarcity, crowds and strange texts; make hostile BUDGET=minutes SEED=n
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(BIN)/python -m tests.hostile --budget $(BUDGET) --seed $(SEED)

lint: $(READY)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What results are called; another name keeps those of another processor.
NAME ?= cpu
bench: $(PEERS)  ## every ratio of the README's table, into benchmarks/results/, with freed memory kept and returned
	$(PEERS_VENV)/bin/python -m benchmarks.run --name $(NAME)
	$(PEERS_VENV)/bin/python -m benchmarks.run --memory returned --name $(NAME)

clean:
	rm -rf $(VENV) $(PEERS_VENV) build .pytest_cache .mypy_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("expander-sae needs Python 3.11 or newer; name one with make PYTHON=...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(INSTALL) -c constraints.txt -e '.[dev]'
	touch $(READY)

# Tests look at the dashboard in a real browser, the command that CHROMIUM names; where it cannot be had they say so.
CHROMIUM ?= chromium
export CHROMIUM
browser:
	-command -v $(CHROMIUM) > /dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }

# Other libraries, in an environment of their own. dictionary-learning asks for a nnsight that is two years old, which
# its autoencoders do not use, and for plotting. SAEBench and SAEDashboard ask for numpy 1, transformers
# 4 and a torchvision that pulls in CUDA, and run without them. So these come without what they ask for.
$(PEERS): pyproject.toml constraints.txt constraints-peers.txt
	test -x $(PEERS_VENV)/bin/python || $(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python $(INSTALL) -c constraints.txt -c constraints-peers.txt -e '.[peers]' pytest hypothesis
	$(PEERS_VENV)/bin/python $(INSTALL) --no-deps dictionary-learning==0.1.0 sae-bench==0.6.0 \
		sae-probes==0.4.2 xgboost==3.2.0 sae-dashboard==0.8.0 eindex-callum==0.1.2
	touch $(PEERS)
