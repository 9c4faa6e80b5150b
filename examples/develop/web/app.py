"""A guest book: counts its visitors in the store and shows the page that the template says."""

import http.server
import json
import os
import pathlib
import signal
import string
import urllib.request

import accents

HERE = pathlib.Path(__file__).parent
settings = {}


def read_settings(*_):
    settings.update(json.loads((HERE / "settings.json").read_text()))
    print("settings read:", settings["title"])


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path.startswith("/static/"):
            name = pathlib.PurePosixPath(self.path).name
            return self.answer((HERE / "static" / name).read_text(), "text/css")
        with urllib.request.urlopen(os.environ["STORE"] + "/visits", data=b"") as answer:
            count = answer.read().decode()
        # Read anew each time, so that an edit shows at once.
        template = string.Template((HERE / "templates" / "index.html").read_text())
        title = accents.emphasise(settings["title"])
        self.answer(template.substitute(title=title, count=count), "text/html")

    def answer(self, text, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


signal.signal(signal.SIGTERM, lambda *_: exit(0))
signal.signal(signal.SIGHUP, read_settings)
read_settings()
print("the guest book is open")
http.server.ThreadingHTTPServer(("", 8000), Page).serve_forever()
