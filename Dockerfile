# One image per role, each with the packages of its role alone (the extras of pyproject.toml):
#
#   docker build --target operator -t tidemill-operator .
#
# Targets: operator, feast, ingest, outcomes, watch, alerts, feedback, dashboard, serve, pipelines, and model, from which
# a model's own image starts (docs/kubernetes/user-code.md): its runs and its servers use the same one. Versions and
# hashes are those of the lock. `make images` makes the same environments without a container engine, and starts each role.
ARG PYTHON=docker.io/library/python:3.11-slim-bookworm

FROM ${PYTHON} AS source
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY .ci/requirements.txt .ci/
COPY streaming streaming
COPY feature_store feature_store
COPY pipelines pipelines
COPY platform platform
RUN uv venv /opt/tidemill
ENV INSTALL="uv pip install --no-cache --python /opt/tidemill --constraint .ci/requirements.txt"

# What roles share is built once; of the stages that a target does not need, none is.
FROM source AS with-streaming
RUN ${INSTALL} ".[streaming]"
FROM source AS with-labels
RUN ${INSTALL} ".[labels,cluster]"
FROM source AS with-features
RUN ${INSTALL} ".[features]"
FROM source AS with-alerts
RUN ${INSTALL} ".[alerts]"
FROM source AS with-serving
RUN ${INSTALL} ".[serving]"
FROM source AS with-pipelines
RUN ${INSTALL} ".[pipelines]"
FROM source AS with-model
RUN ${INSTALL} ".[pipelines,serving]"
FROM source AS with-operator
RUN ${INSTALL} ".[operator]"
FROM source AS with-dashboard
RUN ${INSTALL} ".[dashboard,cluster]"

FROM ${PYTHON} AS role
# Numbers, so that a cluster can see that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin tidemill
ENV PATH=/opt/tidemill/bin:${PATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TIDEMILL_LOG_FORMAT=json HOME=/tmp
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["tidemill"]

FROM role AS ingest
COPY --from=with-streaming /opt/tidemill /opt/tidemill
FROM role AS feast
COPY --from=with-features /opt/tidemill /opt/tidemill
FROM role AS outcomes
COPY --from=with-streaming /opt/tidemill /opt/tidemill
FROM role AS watch
COPY --from=with-streaming /opt/tidemill /opt/tidemill
FROM role AS alerts
COPY --from=with-alerts /opt/tidemill /opt/tidemill
FROM role AS feedback
COPY --from=with-labels /opt/tidemill /opt/tidemill
FROM role AS dashboard
COPY --from=with-dashboard /opt/tidemill /opt/tidemill
FROM role AS serve
COPY --from=with-serving /opt/tidemill /opt/tidemill
FROM role AS pipelines
COPY --from=with-pipelines /opt/tidemill /opt/tidemill
FROM role AS model
COPY --from=with-model /opt/tidemill /opt/tidemill
FROM role AS operator
COPY --from=with-operator /opt/tidemill /opt/tidemill
