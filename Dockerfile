# One image for every process: `phaseline gateway`, `phaseline worker`, `phaseline db migrate`.
FROM python:3.13-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/phaseline
ENV PATH=/opt/phaseline/bin:$PATH
WORKDIR /build
# The dependencies change seldom: a layer of their own.
COPY requirements.lock .
RUN pip install --require-hashes --requirement requirements.lock
COPY . .
RUN pip install --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/phaseline --create-home phaseline
COPY --from=build /opt/phaseline /opt/phaseline
ENV PATH=/opt/phaseline/bin:$PATH PYTHONUNBUFFERED=1
USER phaseline
WORKDIR /var/lib/phaseline
EXPOSE 8000
CMD ["phaseline", "--help"]
