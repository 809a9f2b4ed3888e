"""A Google Cloud Storage of one's own, in memory: as much of its JSON interface as gcsfs,
tensorstore and Google's client ask for."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c


class Bucket:
    """`gs://bucket`: objects by name, each with the number of its version."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.versions, self.changing = 0, threading.Lock()
        self.refuses, self.read_only, self.hangs = False, False, False
        self.downloads: list[str] = []
        self.uploads: dict[str, bytes] = {}  # under way, in pieces

    def put(self, name: str, data: bytes, version: str | None = None) -> bool:
        """Whether the object's version was the one asked for; 0: there is none."""
        with self.changing:
            now = self.objects[name][1] if name in self.objects else 0
            if version is not None and int(version) != now:
                return False
            self.versions += 1
            self.objects[name] = data, self.versions
            return True

    def names(self, prefix: str) -> list[str]:
        return [n.removeprefix(prefix) for n in sorted(self.objects) if n.startswith(prefix)]

    def about(self, name: str) -> dict[str, Any]:
        data, version = self.objects[name]
        crc32c = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        return {
            "kind": "storage#object", "bucket": "bucket", "name": name, "size": str(len(data)),
            "generation": str(version), "metageneration": "1", "crc32c": crc32c,
            "timeCreated": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
        }  # fmt: skip

    def listed(self, asked: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        items, folders = [], set()
        for rest in self.names(prefix):
            first, found, _ = rest.partition(delimiter) if delimiter else (rest, "", "")
            after = prefix + rest >= asked.get("startOffset", "")
            if found:
                folders.add(prefix + first + delimiter)
            elif after and not ("endOffset" in asked and prefix + rest >= asked["endOffset"]):
                items.append(self.about(prefix + rest))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status: int, message: str) -> None:
        self.answer(status, {"error": {"code": status, "message": message}})

    def answered(self) -> bool:
        """Takes in the request: `path`, `asked`, `body` and the `name` of an object that is there.
        True where the answer is the same whatever was asked."""
        url = urlsplit(self.path)
        self.asked = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        self.at = url.path
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match = re.search(r"/b/([^/]+)(?:/o/([^/]+))?", url.path)
        assert match is not None, url.path
        name = unquote(match[2] or "")
        self.name = name if name in self.bucket.objects else None
        if self.bucket.hangs:
            time.sleep(3)
        if match[1] != "bucket":
            self.error(404, "The specified bucket does not exist.")
        refused = self.bucket.refuses or (self.bucket.read_only and self.command != "GET")
        if match[1] == "bucket" and refused:
            self.error(403, "no access")
        return match[1] != "bucket" or refused

    def do_GET(self) -> None:
        if self.answered():
            return
        if self.at.endswith("/o"):
            self.answer(200, self.bucket.listed(self.asked))
        elif self.at.endswith("/b/bucket"):
            self.answer(200, {"kind": "storage#bucket", "name": "bucket"})
        elif self.name is None:
            self.error(404, "No such object")
        elif self.asked.get("alt") == "media":
            self.media(*self.bucket.objects[self.name])
        else:
            self.answer(200, self.bucket.about(self.name))

    def media(self, data: bytes, version: int) -> None:
        self.bucket.downloads.append(str(self.name))
        about = {"X_Goog_Generation": str(version), "ETag": str(version)}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not asked:
            return self.answer(200, data, **about)
        begin = int(asked[1]) if asked[1] else max(len(data) - int(asked[2]), 0)
        end = min(int(asked[2]) + 1, len(data)) if asked[1] and asked[2] else len(data)
        if begin >= len(data):
            return self.answer(416)
        where = f"bytes {begin}-{end - 1}/{len(data)}"
        return self.answer(206, data[begin:end], Content_Range=where, **about)

    def do_POST(self) -> None:
        if self.answered():
            return None
        kind = self.asked.get("uploadType")
        if kind == "session":
            return self.piece()
        copied = re.search(r"/(rewriteTo|copyTo)/b/bucket/o/(.+)$", self.at)
        if copied:
            assert self.name is not None
            self.bucket.put(unquote(copied[2]), self.bucket.objects[self.name][0])
            return self.answer(200, {"done": True})
        if kind == "multipart":
            edge = self.body.split(None, 1)[0]
            _, about, rest = self.body.split(edge, 2)
            name = json.loads(about[about.index(b"{") :])["name"]
            data = rest.split(b"\n\n", 1)[1].removesuffix(b"\n" + edge + b"--")
        elif kind == "media":
            name, data = self.asked["name"], self.body
        else:
            name = self.asked["name"]
            self.bucket.uploads[name] = b""
            session = f"http://{self.headers['Host']}{self.at}?uploadType=session&name={name}"
            return self.answer(200, {}, Location=session)
        if not self.bucket.put(name, data, self.asked.get("ifGenerationMatch")):
            return self.error(412, "conditionNotMet")
        return self.answer(200, self.bucket.about(name))

    def piece(self) -> None:
        """Of an upload; the last one says how many bytes there are."""
        name = self.asked["name"]
        self.bucket.uploads[name] += self.body
        if self.headers["Content-Range"].endswith("/*"):
            last = len(self.bucket.uploads[name]) - 1
            return self.answer(308, Range=f"bytes=0-{last}")
        self.bucket.put(name, self.bucket.uploads.pop(name))
        return self.answer(200, self.bucket.about(name))

    def do_DELETE(self) -> None:
        if self.answered():
            return
        if self.name is None:
            self.error(404, "No such object")
        else:
            self.bucket.objects.pop(self.name, None)
            self.answer(204)


@contextlib.contextmanager
def served(bucket: Bucket) -> Iterator[dict[str, str]]:
    """The environment that leads every client to `bucket`."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that hung up

    server = Server(("127.0.0.1", 0), type("Of", (Handler,), {"bucket": bucket}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"http://127.0.0.1:{server.server_port}"
    try:
        yield {
            "STORAGE_EMULATOR_HOST": where,
            "TENSORSTORE_GCS_HTTP_URL": where,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "FSSPEC_GS_TOKEN": "anon",  # gcsfs looks long for credentials
        }
    finally:
        server.shutdown()
        server.server_close()
