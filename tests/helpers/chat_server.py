"""A chat endpoint in this process, in the form of OpenAI's, whose replies a test decides."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer:
    """``url``; ``requests``: the bodies that came, with their ``authorization``."""

    def __init__(self, reply: Callable[[str], str | int]):
        self.requests: list[dict] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(
                    body | {"authorization": self.headers["Authorization"], "path": self.path}
                )
                content = reply(body["messages"][-1]["content"])
                if isinstance(content, int):  # a status
                    status, answer = content, {"error": {"message": "not today"}}
                else:
                    message = {"role": "assistant", "content": content}
                    choice = {"index": 0, "finish_reason": "stop", "message": message}
                    status, answer = 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
                    answer["choices"] = [choice]
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


@contextmanager
def chat_server(reply: Callable[[str], str | int]) -> Iterator[ChatServer]:
    """Serves ``reply(the user's message)``, a text or the number of an HTTP error."""
    chat = ChatServer(reply)
    thread = threading.Thread(target=chat.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield chat
    finally:
        chat.server.shutdown()
        chat.server.server_close()
        thread.join()


def says_target(text: str) -> str:
    """A judge that looks for the target in the answer."""
    _, target, answer = text.split("\n", 2)
    return "A" if target.removeprefix("Target: ") in answer else "B"
