# The trainer: torch and all of axonnx's commands but `serve` and `submission`.
#
#   docker build -f docker/trainer.Dockerfile -t axonnx-trainer .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" axonnx-trainer train configs/demo.yaml
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
COPY trainer/ /opt/axonnx/trainer/
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/axonnx

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin axonnx
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/axonnx /opt/axonnx
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    AXONNX_DATA=/data
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["python", "/opt/axonnx/axonnx.py"]
CMD ["--help"]
