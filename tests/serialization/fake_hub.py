"""A fake of the Hub's HTTP API on the loopback interface."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_secretsecretsecret"


class Hub(ThreadingHTTPServer):
    """Repositories in memory: the files of each commit, the commit of each branch, and all requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.sizes: dict[str, int | None] = {}
        self.private = False
        self.status: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        sha = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def paths(self, method: str) -> list[str]:
        return [path for verb, path, _ in self.requests if verb == method]


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _reply(self, status: int, value: Any = b"", headers: dict[str, str] | None = None) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for key, text in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(key, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _commit(self, revision: str) -> str | None:
        return self.server.branches.get(revision, revision if revision in self.server.commits else None)

    def do_GET(self) -> None:
        path, hub, token = self.path.partition("?")[0], self.server, self.headers.get("Authorization")
        hub.requests.append((self.command, path, token))
        if hub.status is not None:
            return self._reply(hub.status, {"error": "no"})
        missing = {"X-Error-Code": "RepoNotFound"}
        if (hub.private and token is None) or not hub.commits or "someone/small" not in path:
            return self._reply(404, {}, missing)
        if found := re.fullmatch(r"/someone/small/resolve/([^/]+)/(.+)", path):
            sha = self._commit(found[1])
            content = hub.commits[sha or ""].get(found[2])
            if content is None:
                return self._reply(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": str(sha)})
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            return self._reply(200, content, {"ETag": etag, "X-Repo-Commit": str(sha)})
        sha = self._commit(path.partition("/revision/")[2] or "main")
        if sha is None:
            return self._reply(404, {}, {"X-Error-Code": "RevisionNotFound"})
        files = [
            {"rfilename": name, "size": hub.sizes.get(name, len(content))} for name, content in hub.commits[sha].items()
        ]
        self._reply(200, {"id": "someone/small", "sha": sha, "private": hub.private, "siblings": files})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        hub, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        hub.requests.append((self.command, self.path, self.headers.get("Authorization")))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._reply(401, {"error": "Unauthorized"})
        if self.path.endswith("/create"):
            hub.branches or hub.commit({".gitattributes": b""})
            return self._reply(200, {"url": f"{hub.url}/someone/small"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._reply(200, {"files": modes})
        if "/commit/" in self.path:
            files = dict(hub.commits[hub.branches["main"]])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            sha = hub.commit(files)
            return self._reply(200, {"commitUrl": f"{hub.url}/someone/small/commit/{sha}", "commitOid": sha})
        self._reply(200, {"errors": [], "warnings": []})
