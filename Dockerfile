FROM python:3.13-slim AS build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all: PIP_CONSTRAINT=requirements.lock
# Extras of pyproject.toml: `otel` for traces
ARG EXTRAS=
WORKDIR /build
COPY . .
# The lock holds the development tools too; as a constraint it pins only what is installed here.
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install setuptools && pip install --no-build-isolation ".${EXTRAS:+[$EXTRAS]}" && \
    pip uninstall --yes setuptools

FROM python:3.13-slim
# /data holds the embedded PostgreSQL, used when DATABASE_URL is not set: mount a volume there to keep it.
RUN useradd --system --create-home --uid 10001 feedback && install --directory --owner feedback /data
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 DATA_DIR=/data
USER feedback
WORKDIR /home/feedback
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import os, urllib.request as http; \
http.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\") or 8080}/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["feedback-loop", "up"]
