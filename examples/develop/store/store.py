"""A database of counters: SQLite behind HTTP. POST /NAME counts one up and answers with the count."""

import http.server
import signal
import sqlite3
import sys
import urllib.request

if sys.argv[1:] == ["check"]:
    urllib.request.urlopen("http://127.0.0.1:7000/", timeout=2)
    sys.exit()

database = sqlite3.connect("/data/counters.db", check_same_thread=False)
database.execute("create table if not exists counters (name text primary key, count integer)")


class Counters(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer("ready")

    def do_POST(self):
        query = (
            "insert into counters values (?, 1) on conflict (name) do update set count = count + 1 returning count"
        )
        with database:
            (count,) = database.execute(query, (self.path.strip("/"),)).fetchone()
        self.answer(str(count))

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("the store is open")
http.server.HTTPServer(("", 7000), Counters).serve_forever()
