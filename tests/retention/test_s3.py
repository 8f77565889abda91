"""The same archive in what speaks S3: a server of its own, over HTTP."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from events import audit
from events.archive_s3 import S3Store
from events.archive_store import ArchiveBroken, ArchiveUnavailable
from phaseline import archives, database
from phaseline.erase import erase
from phaseline.settings import Misconfigured, Settings
from tests.ports import free_port
from tests.retention.scene import Scene

URL = "s3://phaseline-archive/of/this/one"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    port = free_port()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    url = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{url}/phaseline-archive", method="PUT"))
    yield server
    server.stop()


@pytest.fixture
async def settings(settings: Settings, server: ThreadedMotoServer) -> Settings:
    del server
    return settings.model_copy(update={"archive": URL})


async def test_jobs_go_open_and_are_erased_there_too(scene: Scene) -> None:
    ids = [await scene.completed({"name": "Ada"}, weeks_ago=5, large=b"z" * 300_000) for _ in range(2)]
    before, names = await scene.streams(*ids), await scene.log.artifact_names(ids[0])
    assert (await scene.sweep()).jobs == 2
    assert await scene.streams(*ids) == before
    assert len(await scene.log.artifact(ids[0], names[0])) == 300_000
    assert await erase(scene.settings, ids[0], actor="user:ada", reason="asked") == 5
    async with database.opened(scene.settings) as log:
        assert "Ada" not in repr(await database.whole_stream(log, ids[0]))
        assert await database.whole_stream(log, ids[1]) == before[1]
        assert (await audit.verify(log)).findings == []
    store = archives.make_store(scene.settings)
    assert store is not None
    there = await store.names(2**33)
    assert len(there) == 2  # the object and its manifest, and nothing of the one before
    for name in there:
        await store.delete(name)
        await store.delete(name)
    assert await store.names(2**33) == []
    async with database.opened(scene.settings) as log:
        with pytest.raises(ArchiveBroken):
            await log.read(ids[1], 0)


async def test_a_large_object_is_kept_in_parts(server: ThreadedMotoServer, tmp_path: Path) -> None:
    del server
    content = tmp_path / "content"
    content.write_bytes(bytes(range(256)) * 50_000)  # over 12 MB: more than one part
    store = S3Store(URL)
    await store.put("w1/large", content)
    with (tmp_path / "back").open("w+b") as back:
        await store.fetch("w1/large", 0, None, back)
        back.seek(0)
        assert back.read() == content.read_bytes()
    with (tmp_path / "part").open("w+b") as part:
        await store.fetch("w1/large", 255, 3, part)
        part.seek(0)
        assert part.read() == b"\xff\x00\x01"


async def test_a_service_that_is_away_is_an_outage(server: ThreadedMotoServer, tmp_path: Path) -> None:
    store = S3Store(URL)
    server.stop()
    content = tmp_path / "content"
    content.write_bytes(b"x")
    with pytest.raises(ArchiveUnavailable, match="does not answer"):
        await store.put("w1/x", content)


def test_a_place_that_cannot_be_is_named(settings: Settings) -> None:
    with pytest.raises(Misconfigured, match="PHASELINE_ARCHIVE"):
        archives.make_store(settings.model_copy(update={"archive": "gs://bucket"}))
