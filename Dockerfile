# syntax=docker/dockerfile:1
FROM python:3.13-slim AS build
WORKDIR /srv
COPY requirements.lock .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY chatkit_postgres chatkit_postgres
COPY migrations migrations
COPY app app
COPY examples examples
# Version and console script only; the code itself is run from /srv. Hatchling is fetched by the build alone.
RUN /venv/bin/pip install --no-cache-dir --no-deps --editable .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home chat && install -d -o 10001 /data
WORKDIR /srv
# Agents are found in /agents: mounted there, or copied by an image that is built on this one.
ENV PYTHONPATH=/agents
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 CHAT_LOG_FORMAT=json CHAT_DATA_DIR=/data
COPY --from=build /venv /venv
COPY --from=build /srv /srv
COPY alembic.ini ./
USER 10001
EXPOSE 8000
# By the shell: an interpreter of Python each time would take a tenth of a core.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /health/ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
CMD ["chatkit-postgres", "serve", "--host", "0.0.0.0"]
