# The HTTP service: ONNX Runtime and `artifact`, `serve`; no torch.
#
#   docker build -f docker/serve.Dockerfile -t axonnx-serve .
#   docker build -f docker/serve.Dockerfile -t axonnx-serve:gpu --build-arg RUNTIME=gpu .
#   docker run --rm -p 8000:8000 -v "$PWD/demo:/artifact:ro" axonnx-serve
#
# RUNTIME              cpu, or gpu (x86-64; the host brings the NVIDIA driver and container toolkit)
# CUDA                 13 (driver 580 or newer), or 12 with the last ONNX Runtime built for it, 1.26
# ONNXRUNTIME_VERSION  empty for the pinned one, or one that docker/requirements/ has a file for, so that
#                      a service can run the version of a submission
ARG RUNTIME=cpu

FROM python:3.11-slim-bookworm AS build
ARG RUNTIME
ARG CUDA=13
ARG ONNXRUNTIME_VERSION=
# Honoured where it is set: the package index to install from.
ARG PIP_INDEX_URL
WORKDIR /build
COPY docker/requirements/ requirements/
RUN set -eu; \
    case "$RUNTIME" in \
        cpu) wanted=requirements/serve-cpu.txt; runtime=onnxruntime ;; \
        gpu) wanted=requirements/serve-gpu-cuda$CUDA.txt; runtime=onnxruntime-gpu ;; \
        *) echo "RUNTIME=$RUNTIME; must be cpu or gpu" >&2; exit 2 ;; \
    esac; \
    [ -f "$wanted" ] || { echo "CUDA=$CUDA; must be 12 or 13" >&2; exit 2; }; \
    exact=requirements/$runtime-$ONNXRUNTIME_VERSION.txt; \
    if [ -n "$ONNXRUNTIME_VERSION" ] && [ ! -f "$exact" ]; then \
        echo "ONNXRUNTIME_VERSION=$ONNXRUNTIME_VERSION: there is no docker/$exact with its hashes" >&2; \
        exit 2; \
    fi; \
    python -m venv --without-pip /opt/venv; \
    install="python -m pip --python /opt/venv/bin/python --disable-pip-version-check --no-cache-dir \
        install --no-compile --require-hashes --only-binary=:all:"; \
    $install -r "$wanted"; \
    if [ -n "$ONNXRUNTIME_VERSION" ]; then $install --no-deps -r "$exact"; fi
COPY axonnx.py /opt/axonnx/
COPY artifact/ /opt/axonnx/artifact/
COPY recording/ /opt/axonnx/recording/
COPY serve/ /opt/axonnx/serve/
# The root file system is read-only later, so the bytecode is made now; the source decides, not its date.
RUN /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/venv/lib /opt/axonnx

FROM python:3.11-slim-bookworm AS runtime-cpu
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin axonnx
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/axonnx /opt/axonnx
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AXONNX_HOST=0.0.0.0 \
    AXONNX_PORT=8000 \
    AXONNX_MODELS=/artifact

FROM runtime-cpu AS runtime-gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    CUBLAS_WORKSPACE_CONFIG=:4096:8

FROM runtime-${RUNTIME}
USER 10001:10001
WORKDIR /opt/axonnx
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-c", \
    "import os, ssl, urllib.request as r; e = os.environ; \
    s = 'https' if e.get('AXONNX_TLS_CERTIFICATE') else 'http'; \
    r.urlopen(f\"{s}://127.0.0.1:{e['AXONNX_PORT']}/health/ready\", timeout=2, context=ssl._create_unverified_context())"]
ENTRYPOINT ["python", "/opt/axonnx/axonnx.py"]
CMD ["serve"]
