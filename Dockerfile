# One image per role, each with the packages of its role alone (the extras of pyproject.toml):
#
#   docker build --build-arg EXTRA=streaming -t tidemill-streaming .    ingest, outcomes, watch
#   docker build --build-arg EXTRA=serving   -t tidemill-serving .      serve
#   docker build --build-arg EXTRA=pipelines -t tidemill-pipelines .    the steps of a retrain
#   docker build --build-arg EXTRA=control   -t tidemill-control .      control
#
# Versions are those of the lock. A model's own image starts FROM serving or pipelines and adds its code.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ARG EXTRA
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .ci/requirements.txt .ci/
COPY streaming streaming
COPY feature_store feature_store
COPY pipelines pipelines
COPY platform platform
RUN test -n "${EXTRA}" || { echo "say which role: --build-arg EXTRA=streaming|serving|pipelines|control"; exit 1; } \
    && uv venv /opt/tidemill \
    && uv pip install --no-cache --python /opt/tidemill --constraint .ci/requirements.txt ".[${EXTRA}]"

FROM python:${PYTHON}
COPY --from=build /opt/tidemill /opt/tidemill
# Numbers, so that a cluster can see that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin tidemill
ENV PATH=/opt/tidemill/bin:${PATH} PYTHONUNBUFFERED=1 TIDEMILL_LOG_FORMAT=json
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["tidemill"]
