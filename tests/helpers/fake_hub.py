"""A small Hugging Face Hub on loopback: the part of its protocol that huggingface_hub uses without
Xet. The client is huggingface_hub itself."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_of_the_tests"
API = re.compile(
    r"/api/(models|datasets)/(.+?)(?:/(revision|tree|preupload|commit)/([^/]+)(?:/.*)?)?"
)
FILE = re.compile(r"/(datasets/)?(.+?)/resolve/([^/]+)/(.+)")
BATCH = re.compile(r"/(datasets/)?(.+?)\.git/info/lfs/objects/batch")


def is_lfs(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".parquet"))


@dataclass
class Repo:
    """Commits are whole trees: SHA -> path -> content."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        """A new commit of a branch with these files besides its others. Returns its SHA."""
        tree = {**self.commits.get(self.refs.get(ref, ""), {}), **files}
        content = repr((len(self.commits), ref, sorted(tree.items()))).encode()
        sha = hashlib.sha1(content).hexdigest()
        self.commits[sha], self.refs[ref] = tree, sha
        return sha


@dataclass
class Hub:
    """Repositories by kind and name, old names that redirect, and what was requested."""

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)  # method, path
    ranges: list[str] = field(default_factory=list)  # the Range of every GET that has one
    cuts: int = 0  # downloads of weights that still break off in the middle
    uploads: dict[str, bytes] = field(default_factory=dict)  # SHA-256 -> content
    url: str = ""

    def add(self, name: str, files: dict[str, bytes] | Path, kind: str = "models") -> Repo:
        """A repository with one commit: the files of a folder, or these."""
        if isinstance(files, Path):
            paths = (p for p in files.rglob("*") if p.is_file())
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in paths}
        repo = self.repos[kind, name] = Repo()
        repo.commit({".gitattributes": b"", **files})
        return repo

    def downloads(self) -> list[str]:
        """The paths of all files whose content was sent."""
        found = [FILE.fullmatch(path) for method, path in self.requests if method == "GET"]
        return sorted(match[4] for match in found if match is not None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def respond(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def error(self, status: int, code: str) -> None:
        self.respond(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    @property
    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        path, self.query = unquote(url.path), parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.hub.requests.append((self.command, path))
        if path == "/api/validate-yaml":
            self.respond(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.create()
        elif path.startswith("/upload/"):
            self.hub.uploads[path.rpartition("/")[2]] = self.body
            self.respond(200)
        elif match := BATCH.fullmatch(path):
            self.lfs_batch()
        elif match := API.fullmatch(url.path):
            kind, name, action, revision = match[1], match[2], match[3], unquote(match[4] or "")
            if name in self.hub.renamed:
                target = self.path.replace(name, self.hub.renamed[name], 1)
                self.respond(307, Location=self.hub.url + target)
            elif repo := self.find(kind, name):
                self.api(kind, name, repo, action, revision)
        elif match := FILE.fullmatch(url.path):
            kind = "datasets" if match[1] else "models"
            if repo := self.find(kind, match[2], needs_access=True):
                self.send_file(repo, unquote(match[3]), unquote(match[4]))
        else:
            self.error(404, "NotFound")

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def find(self, kind: str, name: str, needs_access: bool = False) -> Repo | None:
        """The repository; None after an error was sent."""
        repo = self.hub.repos.get((kind, name))
        if repo is None or (repo.private and not self.has_token):
            self.error(404 if self.has_token else 401, "RepoNotFound")
            return None
        if repo.gated and needs_access and not self.has_token:
            self.error(401, "GatedRepo")
            return None
        return repo

    def api(self, kind: str, name: str, repo: Repo, action: str | None, revision: str) -> None:
        sha = repo.refs.get(revision or "main", revision)
        if action == "preupload":
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if is_lfs(f["path"]) else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(self.body)["files"]
            ]
            self.respond(200, {"files": files})
        elif action == "commit":
            self.commit(name, repo, revision)
        elif sha not in repo.commits:
            self.error(404, "RevisionNotFound")
        elif action == "tree":
            self.respond(200, [tree_entry(p, d) for p, d in sorted(repo.commits[sha].items())])
        else:
            siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
            self.respond(200, {"id": name, "sha": sha, "siblings": siblings, "private": False})

    def send_file(self, repo: Repo, revision: str, path: str) -> None:
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            return self.error(404, "RevisionNotFound")
        if path not in repo.commits[sha]:
            return self.error(404, "EntryNotFound")
        data = repo.commits[sha][path]
        entry = tree_entry(path, data)
        headers = {"X_Repo_Commit": sha, "ETag": f'"{entry["oid"]}"', "Accept_Ranges": "bytes"}
        if is_lfs(path):
            headers |= {
                "X_Linked_Etag": f'"{entry["lfs"]["oid"]}"',
                "X_Linked_Size": str(len(data)),
            }
        wanted = self.headers.get("Range")
        if wanted and self.command == "GET":
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content_Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return self.respond(206, data[start:], **headers)
        if self.command == "GET" and is_lfs(path) and self.hub.cuts:
            self.hub.cuts -= 1
            self.send_response(200)
            for name, value in {"Content_Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return None
        return self.respond(200, data, **headers)

    # ---- uploads

    def create(self) -> None:
        body = json.loads(self.body)
        name = "/".join(filter(None, (body.get("organization"), body["name"])))
        if not self.has_token:
            self.error(401, "Unauthorized")
        elif ("models", name) in self.hub.repos:
            self.respond(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
        else:
            self.hub.add(name, {}).private = body.get("visibility") == "private"
            self.respond(200, {"url": f"{self.hub.url}/{name}"})

    def lfs_batch(self) -> None:
        objects = [
            o | {"actions": {"upload": {"href": f"{self.hub.url}/upload/{o['oid']}"}}}
            for o in json.loads(self.body)["objects"]
        ]
        self.respond(200, {"transfer": "basic", "objects": objects})

    def commit(self, name: str, repo: Repo, branch: str) -> None:
        if not self.has_token:
            return self.error(403, "Forbidden")
        lines = [json.loads(line) for line in self.body.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, repo.refs[branch]):
            return self.error(412, "ParentCommitMismatch")
        files = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                assert line["key"] == "lfsFile"
                files[value["path"]] = self.hub.uploads[value["oid"]]
        sha = repo.commit(files, branch)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        return self.respond(200, {"success": True, "commitOid": sha, "commitUrl": url})


def tree_entry(path: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry = {"type": "file", "path": path, "oid": blob, "size": len(data)}
    if is_lfs(path):
        lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        entry["lfs"] = lfs
    return entry


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """A hub that listens on a free port of loopback until the block ends."""
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
