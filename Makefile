# Everything from a bare clone: needs Python 3.11 or later, make and pip. See CONTRIBUTING.md.
#   make demo    train, compress and evaluate on the built-in digits; report in demo/report.html
#   make test    run the tests
#   make check   everything a reviewer would run: linters, types, layers, tests
#   make docs    build the site into docs/_build/html; a broken link or a warning fails
#   make wasm    rebuild what is compiled of coders and web page (needs clang and lld)
#   make release sdist, wheel, SBOM and SHA256SUMS of the last commit into dist/, the same bytes each time
#   make clean   remove what these made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e

.PHONY: demo test lint check docs wasm release clean

demo: $(VENV)/.test
	$(BIN)/squeezekit demo --out demo

test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint docs test

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

CODERS := $(CURDIR)/src/squeezekit/sqz/coders
ROUNDING := $(CURDIR)/src/squeezekit/compression/compiled
PAGE := $(CURDIR)/src/squeezekit/interop/page

wasm:
	native/build.sh coders "$(CODERS)/coders.wasm"
	native/build.sh coders-x86_64-linux "$(CODERS)/coders-x86_64-linux.so"
	native/build.sh rounding "$(ROUNDING)/rounding.wasm"
	native/build.sh rounding-x86_64-linux "$(ROUNDING)/rounding-x86_64-linux.so"
	native/build.sh page "$(PAGE)/runtime.wasm"
	native/build.sh page-float "$(PAGE)/float.packed"
	native/build.sh page-int8 "$(PAGE)/int8.packed"
	cd src/squeezekit && find * -name '*.so' -o -name '*.wasm' -o -name '*.packed' | LC_ALL=C sort \
	  | xargs sha256sum > shipped.sha256

# Of the last commit, whatever else lies here; the wheel is built from the sdist, as installers do it.
release: $(VENV)/.release
	rm -rf dist build/release
	mkdir -p dist build/release
	git archive HEAD | tar -x -C build/release
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m build --no-isolation --outdir dist build/release
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o dist/sbom.cdx.json \
	  $(BIN)/python
	cd dist && sha256sum *.tar.gz *.whl sbom.cdx.json > SHA256SUMS
	rm -rf build/release

clean:
	rm -rf $(VENV) demo docs/_build build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache \
	  .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp file is made once its installation ends well, so that a second run has nothing to do and
# an interrupted one starts again.
$(VENV)/.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "squeezekit needs Python 3.11 or later, but '$(PYTHON)' is not (`$(PYTHON) --version 2>&1`):" \
	    "name another with  make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.test: $(VENV)/.venv pyproject.toml constraints.txt
	@echo "Installing squeezekit and what its tests need into $(VENV) (minutes the first time)"
	@$(INSTALL) '.[test]'
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	@echo "Installing the linters into $(VENV)"
	@$(INSTALL) '.[dev]'
	@touch $@

$(VENV)/.release: $(VENV)/.test
	@echo "Installing what makes a release into $(VENV)"
	@$(INSTALL) '.[release]'
	@touch $@
