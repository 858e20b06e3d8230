# One image for each program: docker build --build-arg PROGRAM=score -t whyflag-score .
# PROGRAM is score, explain, archive, console or jobs. BASE is Debian 12 with Python 3.11; images/build makes one from Debian packages
# and builds without a Docker daemon.
ARG BASE=python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
# hadolint ignore=DL3006
FROM ${BASE} AS build
ARG PROGRAM
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 UV_NO_CACHE=1 UV_LINK_MODE=copy UV_SYSTEM_CERTS=1
COPY bootstrap.lock images/build.lock images/${PROGRAM}.lock images/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --quiet --no-deps --require-hashes -r images/bootstrap.lock \
    && /opt/build/bin/uv pip install --quiet --python /opt/build/bin/python --no-deps --require-hashes -r images/build.lock \
    && python3 -m venv --without-pip /opt/whyflag \
    && /opt/build/bin/uv pip install --quiet --python /opt/whyflag/bin/python --no-deps --require-hashes -r images/${PROGRAM}.lock
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY models models
COPY explain explain
COPY analyst analyst
COPY training training
COPY streams streams
COPY cli cli
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir wheels . \
    && /opt/build/bin/pip --python /opt/whyflag/bin/python install --quiet --no-compile --no-deps wheels/*.whl
COPY images/finish images/start images/health images/
RUN sh images/finish

# hadolint ignore=DL3006
FROM ${BASE}
# XGBoost and numba need OpenMP; the base of images/build has it
# hadolint ignore=DL3008
RUN ls /usr/lib/*-linux-gnu/libgomp.so.1 > /dev/null 2>&1 \
    || { apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*; }
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin whyflag
COPY --from=build /opt/whyflag /opt/whyflag
ARG PROGRAM VERSION=0.2.0 REVISION=unknown
LABEL org.opencontainers.image.title="whyflag-${PROGRAM}" \
    org.opencontainers.image.description="Real-time card-fraud pipeline that explains its alerts: ${PROGRAM}" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/whyflag/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["/opt/whyflag/bin/health"]
ENTRYPOINT ["/opt/whyflag/bin/start"]
CMD ["--help"]
