"""A stand-in for the model and data hub: a small HTTP server on loopback that answers what `huggingface_hub` asks.

It serves repositories from memory: information about a revision, files with ETag and ranges, gated and missing
repositories, a connection that is cut. `fill` puts in what the tasks need: small random checkpoints of the true
architectures, and rows in the true columns, splits and file names. It ends with the block that started it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

NEWEST = "e" * 40  # the commit of repositories without a pinned revision


@dataclass
class Repository:
    """A repository at one commit."""

    commit: str
    files: dict[str, Path] = field(default_factory=dict)
    gated: bool = False


@dataclass
class Hub:
    """What is served, and what was asked.

    Attributes:
        repositories: by (kind, id), the kind being `model` or `dataset`.
        cuts: after how many bytes the next downloads break off, one after the other.
        sent: (file, first byte) of every download.
    """

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    cuts: list[int] = field(default_factory=list)
    sent: list[tuple[str, int]] = field(default_factory=list)
    address: str = ""

    def repository(self, kind: str, name: str, commit: str | None = None) -> Repository:
        """A repository, made if it is not there."""
        return self.repositories.setdefault((kind, name), Repository(commit or NEWEST))


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port of loopback while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, with_body: bool) -> None:
            parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            if parts[0] == "api":
                kind, name, rest = parts[1].removesuffix("s"), "/".join(parts[2:4]), parts[4:]
                self.information(kind, name, rest[1] if rest[:1] == ["revision"] else "main")
                return
            kind = "dataset" if parts[0] == "datasets" else "model"
            parts = parts[1:] if kind == "dataset" else parts
            self.file(kind, "/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)

        def found(self, kind: str, name: str, revision: str) -> Repository | None:
            repository = hub.repositories.get((kind, name))
            if repository is None:
                self.refuse(401 if kind == "model" else 404, "RepoNotFound", "Repository not found")
            elif revision not in ("main", repository.commit):
                self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            else:
                return repository
            return None

        def information(self, kind: str, name: str, revision: str) -> None:
            if (repository := self.found(kind, name, revision)) is None:
                return
            files = [
                {"rfilename": file, "size": path.stat().st_size, "blobId": file}
                for file, path in repository.files.items()
            ]
            facts = {"_id": "1", "id": name, "sha": repository.commit, "siblings": files, "private": False, "tags": []}
            facts |= {"downloads": 0, "likes": 0, "gated": "manual" if repository.gated else False, "disabled": False}
            self.reply(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

        def file(self, kind: str, name: str, revision: str, file: str, with_body: bool) -> None:
            if (repository := self.found(kind, name, revision)) is None:
                return
            if repository.gated:
                self.refuse(403, "GatedRepo", f"Access to model {name} is restricted")
                return
            if file not in repository.files:
                self.refuse(404, "EntryNotFound", "Entry not found")
                return
            content = repository.files[file].read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": repository.commit}
            headers["Accept-Ranges"] = "bytes"
            first = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            if with_body:
                hub.sent.append((file, first))
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            self.reply(206 if first else 200, content[first:], headers, with_body)

        def refuse(self, status: int, code: str, message: str) -> None:
            self.reply(status, b"", {"X-Error-Code": code, "X-Error-Message": message})

        def reply(self, status: int, body: bytes, headers: dict[str, str], with_body: bool = True) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if not with_body or not body:
                return
            if hub.cuts and "ETag" in headers:
                self.wfile.write(body[: hub.cuts.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                return
            self.wfile.write(body)

    return Handler
