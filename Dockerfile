# wsi-her2 in a container: the versions of requirements.lock, no root, no network once it is built.
#   docker build -t wsi-her2 .
#   docker run --rm --network none -u "$(id -u):$(id -g)" -v /data/slides:/slides:ro -v "$PWD":/data wsi-her2 score /slides -o results
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.lock ./
COPY wsi_her2 wsi_her2
COPY pipelines pipelines
COPY configs configs
# Extras beyond the base install: --build-arg EXTRAS=view,pdf,openvino. Their own versions are not locked.
ARG EXTRAS=view
RUN python -m venv /opt/her2 \
 && /opt/her2/bin/pip install --no-cache-dir --disable-pip-version-check -c requirements.lock ".[${EXTRAS}]" \
 && /opt/her2/bin/pip check \
 && /opt/her2/bin/wsi-her2 doctor

FROM python:3.11-slim
LABEL org.opencontainers.image.title="wsi-her2" \
      org.opencontainers.image.description="HER2 scoring of whole-slide images. Research use only." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/her2 /opt/her2
RUN useradd --uid 1000 --create-home her2 && mkdir /data && chown her2 /data
# HOME is writable whatever user the container is run as.
ENV PATH=/opt/her2/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER her2
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["wsi-her2"]
CMD ["--help"]
