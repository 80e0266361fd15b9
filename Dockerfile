# What runs geomim anywhere: docker build --tag geomim . (docs/cluster.md). CUDA comes with torch, the driver with the host.
FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /geomim
# The packages first: a layer that a changed line of code does not build again.
COPY Makefile pyproject.toml requirements.lock ./
RUN python -m venv .venv && .venv/bin/pip install --quiet --constraint requirements.lock torch \
    && .venv/bin/pip install --quiet --no-deps --requirement requirements.lock
COPY . .
RUN .venv/bin/pip install --quiet --no-deps --no-build-isolation --editable . && touch .venv/.ready
ENV PATH=/geomim/.venv/bin:$PATH PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
CMD ["geomim", "--help"]
