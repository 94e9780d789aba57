"""Artifacts and servers that the tests of the service share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server_process import Server, running
from small_artifacts import write_decoder, write_forecaster

import artifact


@pytest.fixture(scope="session")
def forecaster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_forecaster(tmp_path_factory.mktemp("artifacts") / "forecaster")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_decoder(tmp_path_factory.mktemp("artifacts") / "decoder")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One channel, one feature: 80 bytes a row, so that many rows make a long prediction."""
    folder = tmp_path_factory.mktemp("artifacts") / "tiny"
    return write_forecaster(folder, channels=1, features=1, name="tiny")


@pytest.fixture(scope="session")
def forecaster_model(forecaster: Path) -> artifact.Model:
    return artifact.load(forecaster)


@pytest.fixture(scope="session")
def decoder_model(decoder: Path) -> artifact.Model:
    return artifact.load(decoder)


@pytest.fixture(scope="session")
def forecast_server(forecaster: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("forecast"), forecaster) as server:
        yield server


@pytest.fixture(scope="session")
def decode_server(decoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("decode"), decoder) as server:
        yield server
