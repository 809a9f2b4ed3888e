"""Fake Google Cloud Storage in memory: the part of its JSON API that gcsfs, TensorStore and
Google's client use."""

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
    """`gs://bucket`: name -> (content, generation)."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.generation, self.lock = 0, threading.Lock()
        self.refuses, self.read_only, self.hangs = False, False, False
        self.downloads: list[str] = []
        self.uploads: dict[str, bytes] = {}  # resumable uploads in progress

    def put(self, name: str, data: bytes, if_generation: str | None = None) -> bool:
        """Write an object; False if its generation is not `if_generation` (0: no such object)."""
        with self.lock:
            current = self.objects[name][1] if name in self.objects else 0
            if if_generation is not None and int(if_generation) != current:
                return False
            self.generation += 1
            self.objects[name] = data, self.generation
            return True

    def names(self, prefix: str) -> list[str]:
        return [n.removeprefix(prefix) for n in sorted(self.objects) if n.startswith(prefix)]

    def metadata(self, name: str) -> dict[str, Any]:
        data, generation = self.objects[name]
        crc32c = base64.b64encode(google_crc32c.Checksum(data).digest()).decode()
        return {
            "kind": "storage#object", "bucket": "bucket", "name": name, "size": str(len(data)),
            "generation": str(generation), "metageneration": "1", "crc32c": crc32c,
            "timeCreated": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:00Z",
        }  # fmt: skip

    def list_objects(self, query: dict[str, str]) -> dict[str, Any]:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        items, folders = [], set()
        for rest in self.names(prefix):
            first, separator, _ = rest.partition(delimiter) if delimiter else (rest, "", "")
            after = prefix + rest >= query.get("startOffset", "")
            if separator:
                folders.add(prefix + first + delimiter)
            elif after and not ("endOffset" in query and prefix + rest >= query["endOffset"]):
                items.append(self.metadata(prefix + rest))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(folders)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer is two writes
    bucket: Bucket

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def respond(self, status: int, body: Any = b"", **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status: int, message: str) -> None:
        self.respond(status, {"error": {"code": status, "message": message}})

    def read_request(self) -> bool:
        """Parse the request into `path`, `query`, `body` and the `name` of an existing object.
        True: the request was refused."""
        url = urlsplit(self.path)
        self.query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
        self.url_path = url.path
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
        if self.read_request():
            return
        if self.url_path.endswith("/o"):
            self.respond(200, self.bucket.list_objects(self.query))
        elif self.url_path.endswith("/b/bucket"):
            self.respond(200, {"kind": "storage#bucket", "name": "bucket"})
        elif self.name is None:
            self.error(404, "No such object")
        elif self.query.get("alt") == "media":
            self.media(*self.bucket.objects[self.name])
        else:
            self.respond(200, self.bucket.metadata(self.name))

    def media(self, data: bytes, generation: int) -> None:
        self.bucket.downloads.append(str(self.name))
        headers = {"X_Goog_Generation": str(generation), "ETag": str(generation)}
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if not match:
            return self.respond(200, data, **headers)
        begin = int(match[1]) if match[1] else max(len(data) - int(match[2]), 0)
        end = min(int(match[2]) + 1, len(data)) if match[1] and match[2] else len(data)
        if begin >= len(data):
            return self.respond(416)
        content_range = f"bytes {begin}-{end - 1}/{len(data)}"
        return self.respond(206, data[begin:end], Content_Range=content_range, **headers)

    def do_POST(self) -> None:
        if self.read_request():
            return None
        upload_type = self.query.get("uploadType")
        if upload_type == "session":
            return self.upload_chunk()
        copied = re.search(r"/(rewriteTo/b/bucket|copyTo/b/bucket|moveTo)/o/(.+)$", self.url_path)
        if copied and self.name is None:
            return self.error(404, "No such object")
        if copied:
            assert self.name is not None
            self.bucket.put(unquote(copied[2]), self.bucket.objects[self.name][0])
            if copied[1] == "moveTo":
                self.bucket.objects.pop(self.name)
            return self.respond(200, {"done": True})
        if upload_type == "multipart":
            boundary = self.body.split(None, 1)[0]
            _, fields, rest = self.body.split(boundary, 2)
            name = json.loads(fields[fields.index(b"{") :])["name"]
            data = rest.split(b"\n\n", 1)[1].removesuffix(b"\n" + boundary + b"--")
        elif upload_type == "media":
            name, data = self.query["name"], self.body
        else:
            name = self.query["name"]
            self.bucket.uploads[name] = b""
            session = f"http://{self.headers['Host']}{self.url_path}?uploadType=session&name={name}"
            return self.respond(200, {}, Location=session)
        if not self.bucket.put(name, data, self.query.get("ifGenerationMatch")):
            return self.error(412, "conditionNotMet")
        return self.respond(200, self.bucket.metadata(name))

    def upload_chunk(self) -> None:
        """One chunk of a resumable upload; the last one has the total size."""
        name = self.query["name"]
        self.bucket.uploads[name] += self.body
        if self.headers["Content-Range"].endswith("/*"):
            last = len(self.bucket.uploads[name]) - 1
            return self.respond(308, Range=f"bytes=0-{last}")
        self.bucket.put(name, self.bucket.uploads.pop(name))
        return self.respond(200, self.bucket.metadata(name))

    def do_DELETE(self) -> None:
        if self.read_request():
            return
        if self.name is None:
            self.error(404, "No such object")
        else:
            self.bucket.objects.pop(self.name, None)
            self.respond(204)


@contextlib.contextmanager
def served(bucket: Bucket) -> Iterator[dict[str, str]]:
    """Serve `bucket`; returns the environment variables that point every client at it."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # the client closed the connection

    server = Server(("127.0.0.1", 0), type("BucketHandler", (Handler,), {"bucket": bucket}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield {
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "FSSPEC_GS_TOKEN": "anon",  # else gcsfs searches for credentials
        }
    finally:
        server.shutdown()
        server.server_close()
