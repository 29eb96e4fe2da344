"""What no schema describes, to each operation of the document: `python3 bad_input.py SOCKET`.

Pages of no size, cursors of nothing and times without end to each list; and to all that is no GET: no body, `null`, a
list, another content type, a megabyte, text that is no UTF-8, and brackets without end. Each call is refused with a
problem document. Only no body may be as good as an empty object, and an operation without a body may pass over what it
gets.
"""

import http.client
import itertools
import json
import socket
import sys

from objects import path_of

QUERIES = ("limit=0", "limit=-1", f"limit={10**30}", "limit=", "limit=x", "after=", "after=%21", "after=%ff")
TIMES = ("0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "-009999-01-02T01:59:59Z")
JSON = "application/json"
BODIES = {
    "no body": (None, b""),
    "null": (JSON, b"null"),
    "a list": (JSON, b"[]"),
    "another content type": ("text/plain", b"{}"),
    "a megabyte": (JSON, b'{"name":"' + b"a" * 1_000_000 + b'"}'),
    "no UTF-8": (JSON, b'{"name":"\xff\xfe"}'),
    "brackets without end": (JSON, b'{"name":' + b"[" * 20_000),
}
PROBLEM = "application/problem+json"
FIELDS = ("type", "title", "code", "detail", "request_id")


class Gateway(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def call(gateway, method, path, content_type=None, body=b""):
    connection = Gateway(gateway)
    headers = {"Content-Type": content_type} if content_type else {}
    try:
        connection.request(method, path, body or None, headers)
    except (BrokenPipeError, ConnectionResetError):
        pass  # It was refused before all of it was sent. The answer is there.
    answer = connection.getresponse()
    result = (answer.status, answer.headers.get("content-type"), answer.read())
    connection.close()
    return result


def fault(status, content_type, body, may_pass):
    """What is wrong with an answer, if anything is."""
    if status < 400:
        return None if may_pass else f"it is {status}, and no refusal"
    if status >= 500:
        return f"it is {status}"
    if content_type != PROBLEM:
        return f"it is {content_type}"
    problem = json.loads(body)
    if problem["status"] != status or not all(problem.get(field) for field in FIELDS):
        return "it is no whole problem document"
    return None


def bad_queries(operation):
    """Queries, and whether each may pass: the first and the last of all times are times."""
    names = [parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"]
    for query in QUERIES:
        if query.split("=")[0] in names:
            yield query, False
    times = [name for name in names if name in ("from", "to", "at", "since")]
    for chosen in itertools.product(TIMES, repeat=len(times)) if times else ():
        yield "&".join(f"{name}={time}" for name, time in zip(times, chosen)), True


def calls(document, ask):
    for template, item in document["paths"].items():
        path = path_of(template, document["paths"], ask, lambda _, names: names[0] if names else "none")
        for method, operation in item.items():
            for query, may_pass in bad_queries(operation) if method == "get" else ():
                yield method.upper(), f"{path}?{query}", query, (None, b""), may_pass
            for what, sent in BODIES.items() if method in ("post", "put", "patch") else ():
                yield method.upper(), path, what, sent, what == "no body" or "requestBody" not in operation


def curl(method, path, content_type, body):
    parts = ["curl", "-X", method, "--unix-socket", "DEMO/fleetgate.sock"]
    if content_type:
        parts += ["-H", f"'Content-Type: {content_type}'"]
    if body:
        parts += ["--data-binary", "$" + repr(body[:80])[1:]]
    return " ".join([*parts, f"'http://localhost{path}'"]) + (" # only its beginning" if len(body) > 80 else "")


def main(gateway):
    def ask(path):
        status, _, body = call(gateway, "GET", path)
        return json.loads(body) if status == 200 else None

    count, found = 0, 0
    for method, path, what, (content_type, body), may_pass in calls(ask("/api/v1/openapi.json"), ask):
        answer = call(gateway, method, path, content_type, body)
        count += 1
        if why := fault(*answer, may_pass):
            found += 1
            print(f"{method} {path}, {what}: {why}\n  {answer[2][:300]!r}\n  {curl(method, path, content_type, body)}")
    if found:
        sys.exit(f"{found} of {count} bad calls were not refused as they should")
    print(f"ok    {count} calls with bad input are refused with a problem document")


main(sys.argv[1])
