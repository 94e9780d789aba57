"""What callers change while the service runs, and what it says meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from server_process import Server

import artifact
from serve.app import create_app
from serve.changes import MAX_PENDING, Changes
from serve.engine import Engine
from serve.errors import Overloaded
from serve.repository import LOADING, READY, UNAVAILABLE, Repository
from serve.service import Service
from serve.settings import Settings


class SlowLoad:
    """Loads an artifact as soon as it may."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.count = 0

    def __call__(self, path: Path) -> artifact.Model:
        self.count += 1
        assert self.go.wait(20)
        return artifact.load(path)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(1, 1)
    yield engine
    engine.close()
    assert engine.join(5)


def test_many_loads_hold_up_nothing_else(forecaster: Path, engine: Engine) -> None:
    load = SlowLoad()
    repository = Repository((forecaster,), load)
    app = create_app(Service(repository, engine, Settings(model_control=True)))

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            path = "/v2/repository/models/small-forecaster/load"
            loads = [asyncio.create_task(client.post(path)) for _ in range(40)]
            while sum(task.done() for task in loads) < 40 - MAX_PENDING:
                await asyncio.sleep(0.01)
            assert repository.changes.busy
            for free in ("/metrics", "/", "/page/page.css", "/health/live"):
                response = await asyncio.wait_for(client.get(free), 10)
                assert response.status_code == 200
            load.go.set()
            return list(await asyncio.gather(*loads))

    answers = asyncio.run(asyncio.wait_for(ask(), 30))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 40 - MAX_PENDING
    assert {(answer.status_code, answer.json()["type"]) for answer in refused} == {
        (503, "overloaded")
    }
    assert refused[0].headers["retry-after"] == "1"
    assert load.count == MAX_PENDING
    assert not repository.changes.busy


def test_a_change_whose_caller_is_gone_gives_its_place_back() -> None:
    changes, go = Changes(), threading.Event()

    async def fill() -> None:
        tasks = [asyncio.create_task(changes.run(lambda: go.wait(20))) for _ in range(MAX_PENDING)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await changes.run(lambda: None)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        next_one = asyncio.create_task(changes.run(lambda: 7))
        go.set()
        assert await next_one == 7

    asyncio.run(fill())
    changes.close()


def test_what_is_forgotten_is_not_changed() -> None:
    changes, go, started = Changes(), threading.Event(), threading.Event()
    made: list[int] = []

    def first() -> None:
        started.set()
        go.wait(20)
        made.append(1)

    async def stop() -> None:
        tasks = [
            asyncio.create_task(changes.run(change)) for change in (first, lambda: made.append(2))
        ]
        assert await asyncio.to_thread(started.wait, 20)
        changes.close()
        assert changes.busy
        go.set()
        await asyncio.wait(tasks)

    asyncio.run(stop())
    assert made == [1]
    assert not changes.busy


def test_what_is_still_to_be_loaded_is_listed(
    forecaster: Path, decoder: Path, tmp_path: Path
) -> None:
    (tmp_path / "nothing").mkdir()
    repository = Repository((forecaster, decoder, tmp_path / "nothing"), artifact.load)
    assert repository.index() == []
    started = iter(repository.load_all())

    def states() -> list[tuple[str, str, str, str]]:
        return [(x.name, x.version, x.state, x.reason) for x in repository.index()]

    loads = (
        ("small-decoder", "1", LOADING, ""),
        ("nothing", "", LOADING, ""),
    )
    next(started)
    assert states() == [("small-forecaster", "1", READY, ""), *loads]
    next(started)
    assert states()[-1] == loads[-1]
    assert list(started)
    assert [state for _, _, state, _ in states()] == [READY, READY, UNAVAILABLE]


def test_all_unloaded_is_no_failure(forecaster: Path, tmp_path: Path) -> None:
    server = Server(tmp_path / "log", forecaster, model_control="true")
    path = "/v2/repository/models/small-forecaster/unload"
    assert server.client.post(path).status_code == 200
    response = server.client.get("/health/ready")
    assert (response.status_code, response.json()["error"]) == (503, "no model is loaded")
    assert server.stop() == 0
    assert server.last_words.endswith("axonnx: stopped\n")
    assert (tmp_path / "log").read_text() == ""
