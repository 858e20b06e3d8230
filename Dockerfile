# Two stages: the first builds a virtual environment from the lock file, the second runs it as an unprivileged user.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements.lock ./
RUN python -m venv /opt/whyflag && /opt/whyflag/bin/pip install --no-deps --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY core core
COPY models models
COPY explain explain
COPY analyst analyst
COPY training training
COPY streams streams
COPY cli cli
RUN /opt/whyflag/bin/pip install --no-deps --no-build-isolation .

FROM python:3.12-slim-bookworm
# libgomp: XGBoost and scikit-learn need OpenMP
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1=12.* \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin whyflag
COPY --from=build /opt/whyflag /opt/whyflag
ENV PATH=/opt/whyflag/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR=/tmp/numba HOME=/tmp
USER 10001
ENTRYPOINT ["whyflag"]
CMD ["--help"]
