# make course   set up and run the lessons (quick profile) in build/course/; figures and solutions come as they are
# make test     set up, then lint, unit tests and every notebook in the smoke profile
# make demo     set up, build the page that answers in the browser, and serve it on this machine (needs npm)
# make book     the lessons, the docs and the reference as a site (build/book/index.html)
# make paper    the paper (build/paper/paper.pdf)
# Others: learner, assignment NOTEBOOK=02, package, test-colab, test-kaggle, figures, notebooks, lint, badges, bench, test-long,
#         test-floors, clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes, a module of tests (or a notebook) each at a time, in the order in which they are collected.
PARALLEL := -n 2 --dist loadscope --no-loadscope-reorder
# One numeric thread a process: results then do not depend on how many cores there are.
ONE := OMP_NUM_THREADS=1
# The page that answers in the browser needs npm to be built; without it, its test says so and is skipped.
NPM := $(if $(shell command -v npm),demo/node_modules)
# Each notebook and many tests start processes of their own; without bytecode, each would compile PyTorch anew: five seconds.
unexport PYTHONDONTWRITEBYTECODE
SMOKE := $(ONE) TQDM_DISABLE=1 AGR_PROFILE=smoke AGR_DATA=synthetic

.PHONY: course test figures notebooks lint badges book paper demo learner assignment unit package test-colab test-kaggle \
	test-notebooks test-long test-floors bench clean

# The checkout stays as it is. Links of the notebooks lead to its sources and pages.
COURSE := build/course
course: $(VENV)/.course
	if [ -e $(COURSE) ]; then mv $(COURSE) $(COURSE)-$$(date +%Y%m%d-%H%M%S); fi  # somebody may have worked in it
	mkdir -p $(COURSE)
	cp -R notebooks $(COURSE)/notebooks
	ln -s $(addprefix ../../,agr_utils agr_lab docs results figures README.md) $(COURSE)
	AGR_PROFILE=$${AGR_PROFILE:-quick} $(BIN)/python tools/notebooks.py execute $(COURSE)/notebooks/*.ipynb
	@echo "Done. Open the notebooks with: $(BIN)/jupyter lab $(COURSE)/notebooks"

test: lint $(NPM) unit test-notebooks book

# What the lessons need, and below it what tests, figures, the book and the paper need as well.
$(VENV)/.course: pyproject.toml constraints.txt
	$(call set_up,course)
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call set_up,$(EVERYTHING))
	@touch $(VENV)/.course $@

EVERYTHING := course,test,scale,book
define set_up
@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	{ echo "$(PYTHON) is missing or too old: Python 3.11 or newer is needed (make PYTHON=python3.13 ...)"; exit 1; }
@echo "Setting up $(VENV): several minutes, about 7 GB, most of it PyTorch"
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[$(1)]"
endef

figures: $(VENV)/.installed
	$(BIN)/agr figures
	$(BIN)/python tools/croissant.py
	$(BIN)/python tools/manifest.py write

# For who changes the course: the outputs that are committed.
notebooks: $(VENV)/.installed
	AGR_PROFILE=quick AGR_DATA=synthetic $(BIN)/python tools/notebooks.py execute

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

badges: $(VENV)/.installed
	$(BIN)/python tools/notebooks.py badges

# Warnings are errors: a link that leads nowhere, a picture without an alternative text. Where there is npm, the page that
# answers in the browser lies in it.
book: paper $(NPM)
	$(BIN)/python -m sphinx -j 2 -q -W --keep-going -c book -b html $(if $(NPM),-t demo) . build/book
	$(if $(NPM),$(BIN)/python tools/demo.py build build/book/demo)
	@echo "The book: build/book/index.html"

# Every number in it is read from the tables of the pages, which `make figures` fills in.
paper: $(VENV)/.installed
	$(BIN)/python paper/build.py

# Lessons without outputs, solutions and folded answers, to work in: build/learner/
learner: $(VENV)/.course
	$(BIN)/python tools/copies.py learner

# A notebook for nbgrader (make assignment NOTEBOOK=02): build/assignment/source for you, build/assignment/release for the class.
assignment: $(VENV)/.course
	$(BIN)/python tools/copies.py assignment $(NOTEBOOK)

unit: $(VENV)/.installed
	$(ONE) $(BIN)/python -m pytest -q $(PARALLEL) --cov=agr_utils --cov=agr_lab --cov-report=term:skip-covered tests

# The same with 20 kills instead of 3, longer runs of two processes, the memory of every command and 200 mutated images:
# half an hour on two cores.
test-long: $(VENV)/.installed
	AGR_LONG_TESTS=1 OMP_NUM_THREADS=2 $(BIN)/python -m pytest -q tests/utils/training/test_resume.py tests/lab/test_processes.py \
		tests/utils/data/test_data_memory.py tests/utils/data/test_data_fuzz.py

bench: $(VENV)/.installed
	OMP_NUM_THREADS=2 $(BIN)/agr bench

demo: $(VENV)/.installed demo/node_modules
	$(BIN)/python tools/demo.py build
	$(BIN)/python tools/demo.py serve

demo/node_modules: demo/package-lock.json
	npm ci --prefix demo
	@touch $@

test-notebooks: $(VENV)/.installed
	$(SMOKE) $(BIN)/python -m pytest -q --nbval-lax --nbval-current-env $(PARALLEL) notebooks

# A wheel and a source archive in dist/, each installed into an empty environment, where it answers for a photograph.
package: $(VENV)/.installed
	rm -rf dist
	$(BIN)/python -m build --outdir dist . > /dev/null
	$(BIN)/python tools/try_package.py dist/*.whl dist/*.tar.gz

# Notebooks as Colab and Kaggle run them: alone in an empty folder, with the host's versions, fetching what is committed here.
test-colab: HOST := colab
test-colab: HOST_PYTHON ?= python3.13
test-kaggle: HOST := kaggle
test-kaggle: HOST_PYTHON ?= python3.12
test-colab test-kaggle:
	$(HOST_PYTHON) -m venv .venv-$(HOST)
	.venv-$(HOST)/bin/python -m pip install --quiet -r tools/hosted/$(HOST).txt
	.venv-$(HOST)/bin/python tools/hosted/trial.py $(HOST) 00 02 07 09 13

# The lowest versions that pyproject allows, in an environment of their own.
test-floors:
	$(PYTHON) -m venv .venv-floors
	.venv-floors/bin/python tools/floors.py > .venv-floors/constraints.txt
	.venv-floors/bin/python -m pip install --quiet -c .venv-floors/constraints.txt -e ".[course,test,scale]"
	$(ONE) .venv-floors/bin/python -m pytest -q $(PARALLEL) tests

# All that can be made anew. Copies that somebody may have worked in (build/learner, assignment, course) stay.
clean:
	rm -rf $(VENV) .venv-floors .venv-colab .venv-kaggle .pytest_cache .ruff_cache *.egg-info dist demo/node_modules
	rm -rf build/book build/paper build/demo
