# The AI node and the service for viewers: what runs beside an archive that a site has already. For a user without rights,
# on a read-only root; what is written goes to /hippo/section3/out. See container.sh.
#   docker build --file section3/src/deploy_scripts/clinic.Dockerfile --tag hippovolume-clinic .
#   docker run --read-only --tmpfs /tmp --volume results:/hippo/section3/out hippovolume-clinic inference_dcm.py STUDY
FROM docker.io/library/debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends python3=3.11.2-1+b1 python3-venv=3.11.2-1+b1 dcmtk=3.6.7-9~deb12u4 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /hippo
COPY constraints.txt ./
COPY section3/requirements.txt section3/requirements-service.txt section3/
# How pip finds packages where the machine that builds reaches no index.
ARG PIP_OPTIONS=
# hadolint ignore=SC2086
RUN python3 -m venv /venv \
    && /venv/bin/pip install --no-cache-dir ${PIP_OPTIONS} --constraint constraints.txt -r section3/requirements-service.txt
COPY section3/model/ section3/model/
COPY section3/src/ section3/src/
RUN useradd --uid 10001 hippo && install -d -o hippo section3/out
USER 10001
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
WORKDIR /hippo/section3/src
VOLUME /hippo/section3/out
# Of the service; the AI node's page answers at /healthz in the same way.
HEALTHCHECK --interval=30s --timeout=5s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/auth/')"]
ENTRYPOINT ["python"]
CMD ["viewer_server.py", "--port", "8000"]
