# One command a chore. `make` alone lists them.
#   make test PYTHON=python3.12         sets up with another Python than python3
#   make test PIP="--index-url URL"     hands options to pip: torch's page says where its build without CUDA is
PYTHON ?= python3
PIP ?=
BIN := .venv/bin
CLINIC := .venv-clinic/bin
DATA := $(or $(HIPPO_DATA),data)

.PHONY: help demo demo-head viewer hospital container test quick fuzz eda have-data train models ensemble constraints clean
.DEFAULT_GOAL := help
.NOTPARALLEL:  # first look for data, then install

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13

demo: .venv-clinic/ready  ## a DICOM study in, its hippocampus volumes and report out (no torch; a minute)
	@study="$$(ls -d $(DATA)/TestVolumes/*/ 2>/dev/null | head -n 1)"; \
	if [ -z "$$study" ]; then \
		echo "No study in $(DATA)/TestVolumes: making a synthetic one."; \
		$(CLINIC)/python data/phantom.py dicom --out section3/out/demo_studies --seed 1 && study="$$(ls -d section3/out/demo_studies/*/ | head -n 1)"; \
	fi; \
	echo "Measuring $$study"; \
	$(CLINIC)/python section3/src/inference_dcm.py "$$study" --output-dir section3/out/demo

demo-head: .venv-clinic/ready  ## a head as NIfTI in, the volumes of both hippocampi and a page out (no torch; a minute)
	$(CLINIC)/python section3/src/measure_nifti.py data/demo_head.nii.gz --out section3/out/demo_head
	@echo "The page: section3/out/demo_head/demo_head.png. The head is a painted one: nobody's."

viewer: .venv-clinic/ready  ## the service for 3D Slicer and OHIF, on this machine alone, until Ctrl-C
	$(CLINIC)/python section3/src/viewer_server.py --port 8000

hospital: .venv-clinic/ready  ## the clinic's network here: archive, listener, AI node, viewer; sends a study and says where to look
	@HIPPO_PYTHON="$(abspath $(CLINIC)/python)" section3/src/deploy_scripts/hospital.sh

container: .venv-clinic/ready  ## build the clinic's image without Docker and measure a study in it (root; buildah, mmdebstrap, bubblewrap)
	@study="$$(ls -d $(DATA)/TestVolumes/*/ 2>/dev/null | head -n 1)"; \
	if [ -z "$$study" ]; then \
		$(CLINIC)/python data/phantom.py dicom --out section3/out/demo_studies --seed 1 && study="$$(ls -d section3/out/demo_studies/*/ | head -n 1)"; \
	fi; \
	HIPPO_PYTHON="$(abspath $(CLINIC)/python)" section3/src/deploy_scripts/container.sh "$$study"

test: .venv/ready  ## lint and all tests (downloads torch once)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

quick: .venv/ready  ## lint, and the tests without servers, training and fuzzing (under a minute)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -q -m "not slow" -n auto

fuzz: .venv/ready  ## harm thousands of studies and of archives' answers, and see that each is borne (ten minutes)
	$(BIN)/python section3/tests/fuzz.py

eda: have-data .venv/ready section1/out/curation.csv  ## section 1: curate the data and run the notebook
	cd section1 && HIPPO_DATA="$(abspath $(DATA))" ../$(BIN)/jupyter nbconvert --execute --to html EDA.ipynb
	@echo "Pictures: section1/EDA.html; clean pairs: section1/out"

train: have-data .venv/ready section1/out/curation.csv  ## section 2: train, test and export the slices recipe (ten minutes); what is shipped: make models
	cd section2/src && ../../$(BIN)/python run_ml_pipeline.py

RUNS := section2/out
PIPELINE := ../../$(BIN)/python run_ml_pipeline.py
LATEST = $$(ls -d $(RUNS)/$(1)/* | tail -n 1)
models: have-data .venv/ready section1/out/curation.csv  ## section 2: make the shipped model anew, with its cross-validation (three hours of one core); HEADS=DIR: limits on heads too
	cd section2/src && $(PIPELINE) --config ../recipes/volumes.json --out ../out/volumes
	cp $(call LATEST,volumes)/all/model.onnx $(call LATEST,volumes)/all/best.pt section3/model
	$(BIN)/python section2/analyses/known_atrophy.py $(call LATEST,volumes) --save $(RUNS)/shrunken
	$(BIN)/python section3/calibration/fit_quality_limits.py --folds $(call LATEST,volumes) --shrunken $(RUNS)/shrunken $(if $(HEADS),--heads $(HEADS))

ensemble: have-data .venv/ready section1/out/curation.csv  ## section 2: make the shipped ensemble anew (four hours of one core)
	cd section2/src && $(PIPELINE) --config ../recipes/quick.json --out ../out/quick
	cd section2/src && $(PIPELINE) --config ../recipes/quick.json --draw 1 --out ../out/quick_2
	cd section2/src && $(PIPELINE) --config ../recipes/slices.json --out ../out/slices
	$(BIN)/python section2/src/combine_runs.py $(call LATEST,quick) $(call LATEST,quick_2) $(call LATEST,slices) --out $(RUNS)/ensemble
	cp $(call LATEST,ensemble)/model.onnx section3/model/ensemble/model-ensemble.onnx
	$(BIN)/python section3/calibration/fit_quality_limits.py --folds $(call LATEST,quick) $(call LATEST,quick_2) $(call LATEST,slices) --model-path section3/model/ensemble/model-ensemble.onnx

have-data:
	@test -d "$(DATA)/TrainingSet/images" || { echo "No data in $(DATA)/TrainingSet: run 'python3 data/get_data.py' (28 MB from the official archive) or set HIPPO_DATA to the folder that holds TrainingSet/." >&2; exit 1; }

section1/out/curation.csv: | have-data .venv/ready
	cd section1 && ../$(BIN)/python curation.py --data-root "$(abspath $(DATA))"

constraints: .venv/ready  ## renew constraints.txt: the newest versions that requirements.txt allows; then make test
	$(BIN)/python -m pip install --quiet uv
	head -n 2 constraints.txt > .constraints.unfinished
	$(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate requirements.txt \
		| grep -Ev '^(torch|triton|nvidia-|cuda-)' >> .constraints.unfinished
	mv .constraints.unfinished constraints.txt
	rm -rf .venv .venv-clinic

clean:  ## remove the virtual environments
	rm -rf .venv .venv-clinic

.venv/ready: requirements.txt section3/requirements.txt section3/requirements-cluster.txt section3/requirements-service.txt constraints.txt
	$(check_python)
	@echo "Setting up .venv with everything, once. torch comes with CUDA on most machines: 2.9 GB to download, 5.6 GB on"
	@echo "disk. Without a GPU its small build will do: the head of the Makefile says how to have it."
	$(call make_venv,.venv,requirements.txt)

.venv-clinic/ready: section3/requirements.txt section3/requirements-service.txt constraints.txt
	$(check_python)
	@echo "Setting up .venv-clinic with what the clinical host needs (no torch; once)"
	$(call make_venv,.venv-clinic,section3/requirements-service.txt)

# Debian and Ubuntu ship Python without the module that makes virtual environments.
define check_python
	@version="$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" \
		|| { echo "$(PYTHON) does not start: name a Python of 3.10 or newer, as in 'make PYTHON=python3.12 ...'." >&2; exit 1; }; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "$(PYTHON) is Python $$version: name one of 3.10 or newer, as in 'make PYTHON=python3.12 ...'." >&2; exit 1; }; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, run 'apt-get install python3-venv' as root first." >&2; exit 1; }
endef

define make_venv
	@$(PYTHON) -m venv $(1)
	@$(1)/bin/python -m pip install --quiet --constraint constraints.txt $(PIP) -r $(2)
	@touch $@
endef
