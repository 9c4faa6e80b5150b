"""A small service that needs its database: it keeps every visit as a row and tells them over HTTP.

/           adds a row and answers with their number
/rows       answers with their number
/docker     asks the mounted Docker socket for /_ping and passes the answer on
/resolv     answers with /etc/resolv.conf
"""

import http.server
import os
import socket
import time

import psycopg2

URL = os.environ["CODER_PG_CONNECTION_URL"]
HOST, PORT = os.environ.get("CODER_HTTP_ADDRESS", "0.0.0.0:7080").rsplit(":", 1)


def connect():
    """Waits for the database as the real one does: it may still be on its first start."""
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = psycopg2.connect(URL, connect_timeout=2)
            connection.autocommit = True
            return connection
        except psycopg2.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            print("waiting for the database:", str(error).splitlines()[0], flush=True)
            time.sleep(0.2)


DATABASE = connect()
with DATABASE.cursor() as cursor:
    cursor.execute("CREATE TABLE IF NOT EXISTS visits (id serial PRIMARY KEY, seen timestamptz DEFAULT now())")


def rows():
    with DATABASE.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM visits")
        return cursor.fetchone()[0]


def ping():
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(5)
    client.connect("/var/run/docker.sock")
    client.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")
    answer = b""
    while chunk := client.recv(4096):
        answer += chunk
    return answer.decode()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/docker":
            body = ping()
        elif self.path == "/resolv":
            body = open("/etc/resolv.conf").read()
        elif self.path == "/rows":
            body = str(rows())
        else:
            with DATABASE.cursor() as cursor:
                cursor.execute("INSERT INTO visits DEFAULT VALUES")
            body = str(rows())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


print("listening on", HOST, PORT, flush=True)
http.server.ThreadingHTTPServer((HOST, int(PORT)), Handler).serve_forever()
