# syntax=docker/dockerfile:1
# Two stages: what builds stays behind, what runs has no compiler, no pip cache and no test.
# Pin the base by digest where you build for production: docker buildx imagetools inspect python:3.11.13-slim-bookworm
ARG PYTHON=python:3.11.13-slim-bookworm

FROM ${PYTHON} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/lakehouse
WORKDIR /build
COPY requirements-runtime.lock requirements.lock ./
RUN /opt/lakehouse/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements-runtime.lock
COPY pyproject.toml README.md ./
COPY lakehouse lakehouse
COPY dashboard dashboard
COPY jobs jobs
# setuptools builds the wheel, from the lock as well, and stays in this stage. The jars come with their SHA-256 checked
# against lakehouse/jars.lock.json.
RUN sed -n '/^setuptools==/,/^    # via/p' requirements.lock > build.lock \
 && pip install --no-cache-dir --require-hashes --no-deps -r build.lock \
 && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/lakehouse/bin/pip install --no-cache-dir --no-deps /wheels/lakehouse-*.whl \
 && /opt/lakehouse/bin/lakehouse setup \
 && find /opt/lakehouse -name __pycache__ -prune -exec rm -rf {} +

FROM ${PYTHON}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends openjdk-17-jre-headless tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin lakehouse \
 && install -d -o lakehouse -g lakehouse /data /state
COPY --from=build /opt/lakehouse /opt/lakehouse
WORKDIR /app
COPY dashboard dashboard
COPY .streamlit .streamlit
COPY jobs jobs
COPY conf conf
COPY expectations expectations
ENV PATH=/opt/lakehouse/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    LAKEHOUSE_ROOT=/data \
    LAKEHOUSE_STATE=/state
USER 10001:10001
ENTRYPOINT ["tini", "--"]
CMD ["lakehouse", "--help"]
