# syntax=docker/dockerfile:1

FROM python:3.11-slim AS build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
RUN pip install --no-cache-dir .

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin realtime
WORKDIR /srv/realtime
COPY --from=build /opt/venv /opt/venv
# `alembic upgrade head` is run from this image too.
COPY alembic.ini ./
COPY alembic ./alembic
ENV PATH=/opt/venv/bin:$PATH \
    ENVIRONMENT=production \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8002
# Health and not readiness: a process whose database is away keeps its clients and must not be restarted.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8002/realtime/health', timeout=4)"]
# The exec form, so that uvicorn gets the SIGTERM. All interfaces: which of them is published is decided outside.
CMD ["uvicorn", "app.main:app", "--host", "0.0.0.0", "--port", "8002"]
