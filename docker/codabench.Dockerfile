# A stand-in for a challenge's image, to run submissions in: Python and what that image has of what a
# submission uses, nothing else. ONNX Runtime comes in the zip.
#
#   docker build --network host -f docker/codabench.Dockerfile -t axonnx-codabench .
#   docker run --rm --network none -v "$PWD/submission.zip:/submission.zip:ro" \
#       -v "$PWD/test_data:/app/input_data:ro" -v "$PWD/predictions:/predictions" axonnx-codabench
#
# CHALLENGE            a challenge that docker/requirements/ has a codabench-<CHALLENGE>.txt for
# --target submission  puts SUBMISSION, a zip, inside
# --target artifact    builds that zip from ARTIFACT, an artifact that serves every subject (a folder of
#                      this context), by configs/submissions/<CONFIG>.yaml, and puts it inside
#
# CodaBench runs an image as root, with its own command instead of CMD; so there is no ENTRYPOINT.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG CHALLENGE=neural_forecasting

FROM ${PYTHON_IMAGE} AS build
ARG CHALLENGE
# Honoured where it is set: the package index to install from.
ARG PIP_INDEX_URL
COPY docker/requirements/codabench-build.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --root-user-action=ignore --require-hashes \
        -r /tmp/requirements.txt
WORKDIR /build
COPY axonnx.py ./
COPY artifact/ artifact/
COPY submission/ submission/
COPY configs/submissions/ configs/submissions/
RUN mkdir /program && python3 -m submission.programs "$CHALLENGE" /program

FROM build AS packed
ARG CHALLENGE
ARG CONFIG=${CHALLENGE}
ARG ARTIFACT=demo
ARG ONNXRUNTIME_VERSION=
COPY ${ARTIFACT} /artifact
RUN python3 axonnx.py submission build "configs/submissions/$CONFIG.yaml" --artifact /artifact \
        --no-report --python "$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" \
        ${ONNXRUNTIME_VERSION:+--onnxruntime "$ONNXRUNTIME_VERSION"} \
        --output /submission.zip

FROM ${PYTHON_IMAGE} AS base
ARG CHALLENGE
ARG PIP_INDEX_URL
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY docker/requirements/codabench-${CHALLENGE}.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --root-user-action=ignore --require-hashes \
        -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY docker/run_submission.py /usr/local/bin/run-submission
COPY --from=build /program/ /usr/local/lib/axonnx/
RUN chmod 755 /usr/local/bin/run-submission && mkdir -p /app/program /app/input_data /predictions
WORKDIR /app/program
CMD ["run-submission"]

FROM base AS submission
ARG SUBMISSION=submission.zip
COPY ${SUBMISSION} /submission.zip

FROM base AS artifact
COPY --from=packed /submission.zip /submission.zip

FROM base AS challenge
