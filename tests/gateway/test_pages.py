"""What the gateway serves to browsers: the client, the pages, and what a browser is told about them."""

import gzip
import re

import pytest

from gateway.pages import WEB
from tests.gateway.driving import Gateway

CLIENT = "/client/phaseline.js"


async def test_the_client_is_kept_by_a_browser_and_asked_for_again_by_its_etag(gateway: Gateway):
    async with gateway.session.get(gateway.server.make_url(CLIENT)) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/javascript"
        assert await answer.read() == (WEB / "phaseline.js").read_bytes()
        assert answer.headers["Cache-Control"] == "no-cache"
        etag = answer.headers["ETag"]
    async with gateway.session.get(gateway.server.make_url(CLIENT), headers={"If-None-Match": etag}) as again:
        assert (again.status, await again.read(), again.headers["ETag"]) == (304, b"", etag)


async def test_a_page_of_another_origin_may_import_the_client(gateway: Gateway):
    async with gateway.session.get(gateway.server.make_url(CLIENT), headers={"Origin": "https://a.example"}) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_compressed_and_plain_are_two_representations(gateway: Gateway):
    async with (
        gateway.session.get(gateway.server.make_url(CLIENT), headers={"Accept-Encoding": "identity"}) as plain,
        gateway.session.get(
            gateway.server.make_url(CLIENT), headers={"Accept-Encoding": "gzip"}, auto_decompress=False
        ) as packed,
    ):
        assert gzip.decompress(await packed.read()) == await plain.read()
        assert packed.headers["ETag"] != plain.headers["ETag"]
        assert "Accept-Encoding" in packed.headers["Vary"]


async def test_a_program_is_told_where_things_are(gateway: Gateway):
    async with gateway.session.get(gateway.server.make_url("/"), headers={"Accept": "*/*"}) as answer:
        assert (await answer.json())["client"] == CLIENT


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/jobs",
        "/jobs/01a20cae-f0fd-7c5c-90af-8d1914daffc9",
        "/submit/fpl",
        "/schedules",
        "/schedules/weekly",
        "/workers",
        "/live",
        "/audit",
    ],
)
async def test_each_view_has_an_address_whose_page_may_load_nothing_from_elsewhere(gateway: Gateway, path: str):
    async with gateway.session.get(gateway.server.make_url(path), headers={"Accept": "text/html,*/*"}) as answer:
        assert (answer.status, answer.content_type) == (200, "text/html")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "//" not in policy


def test_no_page_or_module_names_another_place_or_parses_markup():
    for path in (*WEB.glob("*.html"), *WEB.glob("*.js")):
        text = path.read_text()
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "<script>",
            "style=",
        ):
            assert forbidden not in text, f"{path.name} has {forbidden}"
        assert not re.search(r"(src|href|from|import)[=( ]*[\"'](https?:)?//", text), path.name


@pytest.mark.parametrize(
    "path", ["/client/index.html", "/client/..%2fapp.py", "/client/package.json", "/web/..%2fapp.py"]
)
async def test_nothing_but_the_listed_files_is_served(gateway: Gateway, path: str):
    async with gateway.session.get(f"{str(gateway.server.make_url('/')).rstrip('/')}{path}") as answer:
        assert answer.status == 404
