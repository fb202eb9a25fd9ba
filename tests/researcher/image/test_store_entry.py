"""`image store`: a vantage6 algorithm store is given an image with a registry, and links that a reader can open."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hospitals import command

IMAGE = "registry.example.org/v6-algorithm@sha256:" + "ab" * 32


@pytest.fixture
def pages():
    """A web server of this machine that has /code and nothing else; its address."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/code" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("vantage6", ["4", "5"])
def test_the_file_has_the_publishers_image_and_links(tmp_path, pages, vantage6):
    file = tmp_path / "store.json"
    result = command("image", "store", IMAGE, "--code-url", f"{pages}/code", "--vantage6", vantage6, "--out", str(file))
    assert result.exit_code == 0, result.output
    assert "does not answer" not in result.output
    content = json.loads(file.read_text())
    assert (content["image"], content["code_url"], content["documentation_url"]) == (IMAGE, *[f"{pages}/code"] * 2)
    assert content["vantage6_version"].startswith(vantage6)
    assert "replace" not in file.read_text()


def test_a_link_that_leads_nowhere_is_named(tmp_path, pages):
    links = ["--code-url", f"{pages}/code", "--documentation-url", f"{pages}/docs"]
    result = command("image", "store", IMAGE, *links, "--out", str(tmp_path / "store.json"))
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert f"{pages}/docs does not answer from here (status 404)" in text
    assert f"{pages}/code does not answer" not in text


@pytest.mark.parametrize(
    ("image", "url", "named"),
    [
        ("v6-algorithm:1", "https://example.org", "has no registry"),
        ("example.org/v6-algorithm@sha256:12", "https://example.org", "no digest"),
        ("example.org/V6", "https://example.org", "IMAGE example.org/V6: is not an image name"),
        (IMAGE, "replace-with-the-repository-url", "must be an http:// or https:// address"),
        (IMAGE, "https://[", "must be an http:// or https:// address"),
        (IMAGE, "https://ada:secret@example.org", "--code-url: takes no user or password"),
        (IMAGE, "file:///etc/passwd", "must be an http:// or https:// address"),
    ],
)
def test_what_a_store_should_not_get_is_refused(tmp_path, image, url, named):
    result = command("image", "store", image, "--code-url", url, "--out", str(tmp_path / "store.json"))
    assert result.exit_code == 2, result.output
    assert named in " ".join(result.output.split())
    assert "secret" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_not_written_over(tmp_path, pages):
    file = tmp_path / "store.json"
    file.write_text("mine")
    result = command("image", "store", IMAGE, "--code-url", f"{pages}/code", "--out", str(file))
    assert result.exit_code == 2
    assert file.read_text() == "mine"


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/", "http://127.0.0.1/a b"])
def test_a_link_that_cannot_even_be_asked_for_is_named(tmp_path, url):
    result = command("image", "store", IMAGE, "--code-url", url, "--out", str(tmp_path / "store.json"))
    assert result.exit_code == 0, result.output
    assert "does not answer from here" in " ".join(result.output.split())
