# The trainer: torch and all of axonnx's commands but `serve` and `submission`.
#
#   docker build -f docker/trainer.Dockerfile -t axonnx-trainer .
#   docker run --rm -v "$PWD:/work" axonnx-trainer train configs/demo.yaml
#
# It works in /work, as the owner of what is mounted there, so that runs/ is not root's.
#
# It trains on the CPU, and on an NVIDIA GPU with `--gpus all`: torch brings its CUDA libraries, which
# make up most of the image (about 3 GB to download).
FROM python:3.11-slim-bookworm AS build
# Honoured where it is set: the package index to install from.
ARG PIP_INDEX_URL
WORKDIR /build
COPY docker/requirements/trainer.txt requirements/
RUN python -m venv --without-pip /opt/venv \
    && python -m pip --python /opt/venv/bin/python --disable-pip-version-check --no-cache-dir \
        install --no-compile --require-hashes --only-binary=:all: -r requirements/trainer.txt
COPY axonnx.py /opt/axonnx/
COPY artifact/ /opt/axonnx/artifact/
COPY recording/ /opt/axonnx/recording/
COPY trainer/ /opt/axonnx/trainer/
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/axonnx

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin axonnx
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/axonnx /opt/axonnx
COPY docker/as-owner /usr/local/bin/as-owner
RUN install --directory --owner=10001 --group=10001 /work
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    AXONNX_DATA=/data
WORKDIR /work
ENTRYPOINT ["as-owner", "python", "/opt/axonnx/axonnx.py"]
CMD ["--help"]
