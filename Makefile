# Two commands set everything up: `make demo` and `make test`. `make docs` builds the pages as a site in build/site,
# `make sbom` lists what the Docker images hold.
PYTHON ?= python3
BIN := .venv/bin

# `make picture` takes the picture in README from the demo; it needs Chromium.
.PHONY: demo test docs sbom picture clean

demo: .venv/cpu
	$(BIN)/grade demo

test: .venv/dev .venv/sbom/bin/cyclonedx-py
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist worksteal

docs: .venv/docs
	rm -rf build/site-source && mkdir -p build && cp -r docs build/site-source
	cp README.md build/site-source/index.md && cp benchmarks/README.md build/site-source/benchmarks.md
	cp CONTRIBUTING.md build/site-source/contributing.md && cp CHANGELOG.md build/site-source/changelog.md
	sed -i -e 's#](docs/#](#g' -e 's#](\.\./benchmarks/README\.md#](benchmarks.md#g' -e 's#](benchmarks/README\.md#](benchmarks.md#g' \
	    -e 's#](\.\./CONTRIBUTING\.md#](contributing.md#g' -e 's#](CONTRIBUTING\.md#](contributing.md#g' \
	    -e 's#](\.\./CHANGELOG\.md#](changelog.md#g' -e 's#](CHANGELOG\.md#](changelog.md#g' \
	    -e 's#](\.\./docs/#](#g' -e 's#](\.\./README\.md#](index.md#g' build/site-source/*.md
	$(BIN)/mkdocs build --strict --quiet

# From the demo's model and its held-out patients; run `make demo` before.
picture: .venv/dev
	$(BIN)/python -m tests.picture demo docs/demo.png

# What is in the Docker images, by Python package with hash (CycloneDX); the base image is not in it.
sbom: .venv/sbom/bin/cyclonedx-py
	mkdir -p build/sbom
	for image in predict hospital train; do \
	    cat requirements/$$image.txt requirements/rtx.txt > build/sbom/$$image.txt && \
	    .venv/sbom/bin/cyclonedx-py requirements build/sbom/$$image.txt --pyproject pyproject.toml \
	        --output-reproducible -o build/sbom/$$image.cdx.json || exit; \
	done

.venv/cpu .venv/dev .venv/docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(@F)]'
	touch $@

# In an environment of its own: what it needs would make every import of MONAI three seconds longer.
.venv/sbom/bin/cyclonedx-py: constraints.txt
	$(PYTHON) -m venv .venv/sbom
	.venv/sbom/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt cyclonedx-bom
	touch $@

clean:
	rm -rf .venv build *.egg-info demo
