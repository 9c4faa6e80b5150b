"""Counts visits in Redis, and remembers the last one in memcached."""

import os
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import greeting


def ask(service, text):
    """Sends lines to a service and returns its answer's first lines."""
    host, port = os.environ[service].split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(text.encode())
        return connection.recv(4096).decode().split("\r\n")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        text = "ok\n"
        if self.path != "/health":
            count = ask("REDIS", "INCR visits\r\n")[0].lstrip(":")
            found = ask("MEMCACHED", "get last\r\n")
            ask("MEMCACHED", f"set last 0 0 {len(count)}\r\n{count}\r\n")
            text = greeting.greet(count, found[1] if len(found) > 2 else "nothing")
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())


ThreadingHTTPServer(("", 8000), Handler).serve_forever()
