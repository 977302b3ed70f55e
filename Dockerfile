FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home lakehouse \
 && install -d -o lakehouse /data
WORKDIR /app
COPY requirements.lock pyproject.toml README.md ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock
COPY lakehouse lakehouse
COPY dashboard dashboard
COPY .streamlit .streamlit
COPY conf conf
COPY expectations expectations
RUN pip install --no-cache-dir --no-deps --no-build-isolation -e . && lakehouse setup
USER lakehouse
CMD ["lakehouse", "--help"]
