"""A hub on loopback: a real server that speaks as much of the hub's interface as an upload takes."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT, TOKEN = "c" * 40, "hf_of_a_test"


class Hub(ThreadingHTTPServer):
    """`repositories` are kind/owner/name -> whether private, `files` what was committed, `asked` the paths of requests.

    With `refusing` commits are turned down, with `dying` their connection is closed.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.repositories: dict[str, bool] = {}
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.refusing = self.dying = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        if "/tree/" in self.path:
            tree = [
                {"type": "file", "path": path, "size": len(content), "oid": COMMIT}
                for path, content in self.server.files.items()
            ]
            self.answer(tree)
            return
        kind, _, name = self.path.partition("?")[0].removeprefix("/api/").partition("/")
        private = self.server.repositories.get(f"{kind}/{name.partition('/revision/')[0]}")
        self.answer({"error": "Repository not found"}, 404) if private is None else self.answer(
            {"id": name, "private": private}
        )

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        hub.asked.append(self.path)
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer({"error": "Invalid credentials in Authorization header"}, 401)
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif "/preupload/" in self.path:
            asked = [file["path"] for file in json.loads(body)["files"]]
            told = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in asked]
            self.answer({"files": told})
        elif "/commit/" in self.path and hub.refusing:
            self.answer({"error": "storage is full"}, 403)
        elif "/commit/" in self.path and hub.dying:
            self.connection.close()
            self.close_connection = True
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del hub.files[line["value"]["path"]]
            name = "/".join(self.path.split("/")[2:5]).removeprefix("models/")
            self.answer({"commitUrl": f"{hub.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT})
        else:  # the card's header is checked
            self.answer({})

    def create(self, named: dict[str, Any]) -> None:
        kind, name = named.get("type", "model"), f"{named['organization']}/{named['name']}"
        url = f"{self.server.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        there = f"{kind}s/{name}" in self.server.repositories
        private = named.get("private") or named.get("visibility") == "private"
        self.server.repositories.setdefault(f"{kind}s/{name}", bool(private))
        self.answer(
            {"url": url, **({"error": "You already created this repo"} if there else {})},
            409 if there else 200,
        )

    def answer(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def running() -> Iterator[Hub]:
    hub = Hub()
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    yield hub
    hub.shutdown()
    hub.server_close()


def run(hub: Hub, *command: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """A command that takes this hub for the real one."""
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def univg(hub: Hub, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(hub, sys.executable, "-m", "univg", *arguments)
