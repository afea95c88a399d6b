# The project's commands. `make` lists them.
#
# Requirements: Go, Node 20 or later with npm, Python 3.11 or later with
# venv, a C compiler for the race detector, curl, jq, openssl, bash. Everything else is pinned and
# installed on demand: Go tools by tools/go.mod, npm packages by
# tools/package-lock.json, Python packages by tools/requirements.txt.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
FUZZTIME ?= 10s
# The seed of the random histories in the tests of the stores.
MODEL_SEED ?= $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
MODEL_SEED := $(MODEL_SEED)

# The packages whose hot paths have micro-benchmarks.
export BENCHMARKED := ./internal/httpserver ./internal/heartbeatjson ./internal/journal ./internal/rpc ./internal/engine ./internal/store/sqlite

TOOL := go tool -modfile=tools/go.mod
NODE_TOOLS := tools/node_modules/.package-lock.json
PYTHON_TOOLS := tools/.venv/.installed

##@ Everyday

.PHONY: run
run: build ## Run a controller with five simulated VMs until Ctrl-C
	@exec bin/controller --simulate 5

.PHONY: build
build: ## Build the programs into bin/
	@echo "==> Building into bin/"
	@[[ -e bin/controller ]] || echo "    The first time this downloads up to 110 MB of modules and takes a minute or two."
	@CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/...

.PHONY: test
test: $(NODE_TOOLS) $(PYTHON_TOOLS) ## Run all tests with the race detector, and the clients' tests
	@tools/require cc
	@tools/require curl
	@tools/require jq
	@tools/require openssl
	@tools/require node
	@PYTHON=$(PYTHON) tools/require python
	@tools/require prometheus
	@echo "==> go vet"
	@go vet ./...
	@echo "==> go test -race (MODEL_SEED=$(MODEL_SEED) repeats the random histories; TESTFLAGS adds flags)"
	@PYTHON=$(PYTHON) MODEL_SEED=$(MODEL_SEED) CGO_ENABLED=1 go test -race $(TESTFLAGS) ./...
	@echo "==> go test -bench, every benchmark once"
	@CGO_ENABLED=1 go test -race -run - -bench . -benchtime 1x $(BENCHMARKED)
	@echo "==> go test in bench/, every measure with tiny sizes"
	@cd bench && go vet ./... && go test -count=1 ./... # go remembers results, not that docs/ has changed
	@echo "==> go test in tools/conformance/, which evaluates the suites and starts the server"
	@cd tools/conformance && go vet ./... && go test ./...
	@tools/check-clients

.PHONY: conformance
conformance: ## Run h2spec and the connectrpc conformance suite, a few minutes: docs/conformance.md (CONFORMANCEFLAGS)
	@cd tools/conformance && go run ./cmd/conformance $(CONFORMANCEFLAGS)

.PHONY: faults
faults: ## Run the failure scenarios, about two minutes: docs/faults.md (FAULTSFLAGS: go test's flags)
	@tools/require proxies
	@tools/require prometheus
	@go test -tags faults -count=1 -timeout 15m -v $(FAULTSFLAGS) ./internal/faults/... | \
		awk '/^=== |^ +--- PASS/ { next } { sub(/^ +suite_test.go:[0-9]+: /, ""); print; fflush() }'

.PHONY: lint
lint: ## Check style: golangci-lint with its formatters, buf lint, buf format, the package graph
	@echo "==> golangci-lint (the first run builds it, which takes a few minutes)"
	@$(TOOL) golangci-lint run
	@cd bench && go tool -modfile=../tools/go.mod golangci-lint run --config ../.golangci.yml
	@cd tools/conformance && go tool -modfile=../go.mod golangci-lint run --config ../../.golangci.yml
	@echo "==> buf lint"
	@$(TOOL) buf lint
	@echo "==> buf format"
	@$(TOOL) buf format --diff --exit-code
	@echo "==> the package graph in docs/architecture.md"
	@$(PYTHON) tools/dependencies --check

.PHONY: fmt
fmt: ## Format Go and proto files in place
	@$(TOOL) golangci-lint fmt cmd gen/go internal # not the modules in it: gci goes by the module
	@cd bench && go tool -modfile=../tools/go.mod golangci-lint fmt --config ../.golangci.yml
	@cd tools/conformance && go tool -modfile=../go.mod golangci-lint fmt --config ../../.golangci.yml
	@$(TOOL) buf format --write

.PHONY: bench
bench: ## Run the benchmarks, an hour, and write docs/performance.md (BENCHFLAGS: only print the results)
	@cd bench && go build -o ../bin/bench ./cmd/bench
	@cd bench && ../bin/bench run $(BENCHFLAGS)
	@$(if $(BENCHFLAGS),,cd bench && ../bin/bench report)

.PHONY: soak
soak: ## Run 5,000 VMs for an hour, with dropped connections and kills (SOAKFLAGS)
	@cd bench && go build -o ../bin/bench ./cmd/bench
	@cd bench && ../bin/bench soak $(SOAKFLAGS)

.PHONY: benchstat
benchstat: ## Compare the micro-benchmarks of the hot paths with those at AGAINST (HEAD~1)
	@tools/benchstat

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (10s)
	@FUZZTIME=$(FUZZTIME) tools/fuzz

##@ Schema

.PHONY: generate
generate: $(NODE_TOOLS) $(PYTHON_TOOLS) ## Generate gen/ from proto/
	@echo "==> buf generate"
	@rm -rf gen/ts/src gen/python/src
	@find gen/go \( -name '*.pb.go' -o -name '*.connect.go' \) -delete
	@$(TOOL) buf generate

.PHONY: api
api: ## Write docs/api.md and the OpenAPI document from proto/ and real responses
	@UPDATE_API=1 go test -count=1 ./internal/apidoc

.PHONY: generate-check
generate-check: generate ## Fail if gen/ is out of date, or proto/ does not generate in another repository
	@tools/check-generated
	@tools/check-own-generation

.PHONY: breaking
breaking: ## Fail if the schema breaks clients of the last release
	@tools/check-breaking

##@ Housekeeping

.PHONY: tools
tools: $(NODE_TOOLS) $(PYTHON_TOOLS) ## Install and build all tools now
	@tools/require cc
	@echo "==> Building the Go tools, which takes minutes the first time"
	@$(TOOL) buf --version
	@$(TOOL) golangci-lint version
	@$(TOOL) protoc-gen-go --version
	@$(TOOL) protoc-gen-connect-go --version

.PHONY: clean
clean: ## Remove bin/ and the installed tools
	rm -rf bin tools/node_modules tools/.venv tools/prometheus gen/ts/node_modules gen/python/.venv

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  %-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(NODE_TOOLS): tools/package.json tools/package-lock.json
	@tools/require node
	@echo "==> Installing the npm tools into tools/node_modules"
	@cd tools && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(PYTHON_TOOLS): tools/requirements.txt
	@PYTHON=$(PYTHON) tools/require python
	@echo "==> Installing the Python tools into tools/.venv"
	@rm -rf tools/.venv
	@$(PYTHON) -m venv tools/.venv
	@tools/.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tools/requirements.txt
	@touch $@
