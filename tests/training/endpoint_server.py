"""A small OpenAI-compatible server as a process of its own; the first part of the path says how it behaves."""

import json
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = "make it red\n%%\na red thing\nEND"


@contextmanager
def serving():
    """The address of a running server, without a path."""
    process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def requests_to(address):
    """What the server was asked so far: path, body, key, and the time in seconds; the list is emptied."""
    with urllib.request.urlopen(f"{address}/requests") as answer:
        return json.load(answer)


class _Handler(BaseHTTPRequestHandler):
    asked: list = []
    at_work = most_at_work = 0
    lock = threading.Lock()

    def do_GET(self):
        taken, self.asked[:] = list(self.asked), []
        self._send(200, taken)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            type(self).at_work += 1
            entry = {"path": self.path, "body": body, "key": self.headers["Authorization"], "time": time.monotonic()}
            self.asked.append({**entry, "at_work": self.at_work})
        try:
            self._answer(self.path.split("/")[1], body)
        finally:
            with self.lock:
                type(self).at_work -= 1

    def _answer(self, behaviour, body):
        if behaviour.isdigit():
            return self._send(int(behaviour), {"error": {"message": "the reason given"}})
        if behaviour == "html":
            return self._send(200, "<html><body>a proxy's page</body></html>", "text/html")
        if behaviour == "broken":
            return self._send(200, '{"choices": [', "application/json")
        if behaviour == "nothing":
            return self._send(200, {"choices": []})
        if behaviour == "flaky" and len(self.asked) % 3:
            return self._send(500, {"error": {"message": "not now"}})
        if behaviour == "slow":
            time.sleep(0.3)
        if self.path.endswith("/moderations"):
            flags = ["weapon" in text for text in body["input"]]
            return self._send(200, {"id": "m", "model": "m", "results": [{"flagged": flag} for flag in flags]})
        said = {"text": ANSWER} if "prompt" in body else {"message": {"role": "assistant", "content": ANSWER}}
        return self._send(200, {"id": "a", "choices": [{"index": 0, "finish_reason": "stop", **said}]})

    def _send(self, status, content, kind="application/json"):
        text = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
