# An image for a challenge's `docker_image`, or to run a submission in: Python and numpy, nothing
# else, so that what runs here runs in every image that has numpy. ONNX Runtime comes in the zip.
#
#   docker build --network host -f docker/codabench.Dockerfile -t axonnx-codabench .
#   docker run --rm --network none \
#       -v "$PWD/submission.zip:/submission.zip:ro" \
#       -v "$PWD/test_data:/app/input_data:ro" -v "$PWD/predictions:/predictions" axonnx-codabench
#
# `--target submission` puts the zip inside as well (--build-arg SUBMISSION=submission.zip).
# CodaBench runs an image as root, with its own command instead of CMD; so there is no ENTRYPOINT.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY docker/requirements/codabench.txt /tmp/requirements.txt
RUN python3 -m pip install --no-cache-dir --root-user-action=ignore --require-hashes \
        -r /tmp/requirements.txt \
    && rm /tmp/requirements.txt
COPY docker/run_submission.py /usr/local/bin/run-submission
COPY submission/templates/drive.py.template /usr/local/lib/axonnx/drive.py
RUN chmod 755 /usr/local/bin/run-submission && mkdir -p /app/program /app/input_data /predictions
WORKDIR /app/program
CMD ["run-submission"]

FROM base AS submission
ARG SUBMISSION=submission.zip
COPY ${SUBMISSION} /submission.zip

FROM base AS challenge
