"""A server that takes repositories and commits as the Hub does, and keeps what it was sent."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_of_the_tests"


@dataclass
class Repository:
    private: bool
    commits: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Hub:
    """``repositories`` by name; ``calls``: method and path of each request; ``address`` for HF_ENDPOINT."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)
    address: str = ""


@contextmanager
def hub():
    """A running server on this machine."""
    state = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def _body(self):
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                content = b""
                while size := int(self.rfile.readline(), 16):
                    content += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return content
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, value, status=200):
            content = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _is_known(self):
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return True
            self._answer({"error": "Invalid credentials"}, 401)
            return False

        def do_GET(self):
            state.calls.append(("GET", self.path))
            name = self.path.partition("?")[0].removeprefix("/api/models/").split("/revision/")[0]
            if self._is_known():
                known = state.repositories.get(name)
                answer = {"id": name, "private": known.private, "siblings": [], "tags": []} if known else {}
                self._answer(answer or {"error": "Repository not found"}, 200 if known else 404)

        def do_PUT(self):
            state.calls.append(("PUT", self.path))
            content = self._body()
            number = hashlib.sha256(content).hexdigest()
            assert self.path == f"/objects/{number}"
            state.objects[number] = content
            self._answer({})

        def do_POST(self):
            state.calls.append(("POST", self.path))
            content = self._body()
            if not self._is_known():
                return
            path = self.path.partition("?")[0]
            if path == "/api/validate-yaml":
                state.cards.append(json.loads(content)["content"])
                self._answer({"errors": [], "warnings": []})
            elif path == "/api/repos/create":
                self._create(json.loads(content))
            elif path.endswith("/info/lfs/objects/batch"):
                self._answer(
                    {
                        "transfer": "basic",
                        "objects": [self._place(item) for item in json.loads(content)["objects"]],
                    }
                )
            elif path.endswith("/preupload/main"):
                files = [
                    {
                        "path": item["path"],
                        "shouldIgnore": False,
                        "oid": None,
                        "uploadMode": "lfs"
                        if item["path"].endswith((".safetensors", ".gguf"))
                        else "regular",
                    }
                    for item in json.loads(content)["files"]
                ]
                self._answer({"files": files})
            elif path.endswith("/commit/main"):
                self._commit(path.removeprefix("/api/models/").removesuffix("/commit/main"), content)
            else:
                self._answer({"error": f"no such path: {path}"}, 404)

        def _create(self, wanted):
            name = f"{wanted.get('organization') or 'somebody'}/{wanted['name']}"
            is_there = name in state.repositories
            if not is_there:
                state.repositories[name] = Repository(
                    wanted.get("private", wanted.get("visibility") == "private")
                )
            answer = {"url": f"{state.address}/{name}", "name": name, "id": name}
            self._answer(
                answer | ({"error": "You already created this model repo"} if is_there else {}),
                409 if is_there else 200,
            )

        def _place(self, item):
            upload = {"href": f"{state.address}/objects/{item['oid']}", "header": {}}
            return {**item, "actions": {"upload": upload}}

        def _commit(self, name, content):
            repository = state.repositories[name]
            for line in map(json.loads, content.decode().splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    repository.commits.append(value["summary"])
                elif line["key"] == "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    repository.files[value["path"]] = state.objects[value["oid"]]
            url = f"{state.address}/{name}/commit/{'0' * 40}"
            self._answer({"commitOid": "0" * 40, "commitUrl": url, "success": True, "hookOutput": ""})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
