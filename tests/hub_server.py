"""A Hugging Face hub on this machine: of one data set, own/set, to read; and of models, to upload to."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse


@contextmanager
def serve(files: Mapping[str, bytes]) -> Iterator[str]:
    """The hub's address (HF_ENDPOINT)."""

    class Handler(_Handler):
        hub = _Hub(files)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


class _Hub:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def entry(self, path: str) -> dict[str, Any] | None:
        if path in self.files:
            content = self.files[path]
            return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        is_folder = any(name.startswith(f"{path}/") for name in self.files)
        return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40} if is_folder else None

    def below(self, folder: str, recursive: bool) -> list[dict[str, Any] | None]:
        root = f"{folder}/" if folder else ""
        found = set()
        for name in self.files:
            if name.startswith(root):
                parts = name.removeprefix(root).split("/")
                found |= {root + "/".join(parts[:n]) for n in range(1, len(parts) + 1 if recursive else 2)}
        return [self.entry(path) for path in sorted(found)]


class _Handler(BaseHTTPRequestHandler):
    hub: _Hub

    def do_GET(self) -> None:
        url = urlparse(self.path)
        path = unquote(url.path)
        if tree := re.fullmatch(r"/api/datasets/own/set/tree/main/?(.*)", path):
            self._json(self.hub.below(tree[1], "recursive=true" in url.query.lower()))
        elif re.fullmatch(r"/api/datasets/own/set(/revision/main)?", path):
            self._json({"id": "own/set", "sha": "a" * 40, "siblings": []})
        elif (file := re.fullmatch(r"/datasets/own/set/resolve/main/(.*)", path)) and file[1] in self.hub.files:
            self._range(self.hub.files[file[1]])
        else:
            self._send(404, b'{"error": "not found"}', {"X-Error-Code": "RepoNotFound"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = json.loads(body) if body.startswith(b"{") else parse_qs(body.decode())
        self._json([entry for path in asked["paths"] if (entry := self.hub.entry(path))])

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _range(self, content: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert asked
        start, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
        self._send(206, content[start : last + 1], {"Content-Range": f"bytes {start}-{last}/{len(content)}"})

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve_uploads(token: str) -> Iterator[tuple[str, dict[str, dict[str, bytes]]]]:
    """The address of a hub that takes models of the owner of `token`, `me`; and what it holds, by model and path.

    Weights come through git LFS, as they do without the package hf_xet.
    """
    models: dict[str, dict[str, bytes]] = {}

    class Handler(_UploadHandler):
        pass

    Handler.models, Handler.weights, Handler.authorization = models, {}, f"Bearer {token}"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", models
    finally:
        server.shutdown()


class _UploadHandler(_Handler):
    models: dict[str, dict[str, bytes]]
    weights: dict[str, bytes]  # by sha256
    authorization: str

    def do_GET(self) -> None:
        self._json({"error": "Repository not found"}, 404)

    def do_PUT(self) -> None:
        content = self._body()
        self.weights[hashlib.sha256(content).hexdigest()] = content
        self._json({})

    def do_POST(self) -> None:
        body, address = self._body(), f"http://{self.headers['Host']}"
        if self.headers["Authorization"] != self.authorization:
            self._json({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            values = json.loads(body)
            name = f"{values['organization'] or 'me'}/{values['name']}"
            if not name.startswith("me/"):
                self._json({"error": "You don't have the rights to create a model under this namespace"}, 403)
            else:
                assert values.get("private") or values.get("visibility") == "private"
                status = 409 if name in self.models else 200
                self.models.setdefault(name, {})
                self._json({"url": f"{address}/{name}", "name": name}, status)
        elif self.path.startswith("/api/validate-yaml"):
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular"}
                for file in json.loads(body)["files"]
            ]
            self._json({"files": [file | {"shouldIgnore": False} for file in files]})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                file | {"actions": {"upload": {"href": f"{address}/{file['oid']}"}}}
                for file in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif (commit := re.fullmatch(r"/api/models/(.*)/commit/main", self.path)) and commit[1] in self.models:
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.models[commit[1]][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.models[commit[1]][value["path"]] = self.weights[value["oid"]]
            self._json({"commitUrl": f"{address}/{commit[1]}/commit/{'c' * 40}", "commitOid": "c" * 40})
        else:
            self._json({"error": f"no such request: {self.path}"}, 404)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))
