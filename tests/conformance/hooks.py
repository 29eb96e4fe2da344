"""For schemathesis: a check, and most generated calls are led to objects that exist and past the headers of the caller.

Generated ids hit nothing, and a generated `If-Match` or `Idempotency-Key` is refused before the handler reads anything
else. So both are replaced in most calls, and stay as they are in the others.
"""

import json
import urllib.request
import zlib

import schemathesis

from objects import path_of

# Of so many calls, one keeps what was generated; of those that remove something, all but one.
KEPT_OF = 5


@schemathesis.check
def answer_is_named(context, response, case):
    """The answer `default` of the document is for errors alone, and these have codes that it lists."""
    document = case.operation.schema.raw_schema
    if response.status_code < 400:
        answers = document["paths"][case.path][case.operation.method]["responses"]
        assert str(response.status_code) in answers, f"the document has no answer {response.status_code}"
    elif response.content:
        code = response.json()["code"]
        assert code in document["components"]["schemas"]["ErrorCode"]["x-extensible-enum"], f"no code {code} is listed"


@schemathesis.hook
def before_call(context, case, kwargs):
    # The same call is changed in the same way when it is repeated.
    chance = zlib.crc32(repr((case.path, case.method, case.path_parameters, case.query, case.body)).encode())
    chance, of_headers = divmod(chance, KEPT_OF)
    chance, of_path = divmod(chance, KEPT_OF)
    if of_headers:
        leave_out_headers(case)
    if (of_path == 0) == (case.method == "DELETE"):
        lead_to_objects(case, chance)


def leave_out_headers(case):
    optional = {header.name.lower() for header in case.operation.headers if not header.is_required}
    for name in [name for name in case.headers or {} if name.lower() in optional]:
        del case.headers[name]


def lead_to_objects(case, chance):
    def choose(parameter, names):
        if names:
            case.path_parameters[parameter] = names[chance % len(names)]
        return str(case.path_parameters[parameter])

    def ask(path):
        try:
            with urllib.request.urlopen(case.operation.base_url.rstrip("/") + path, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            return None

    path_of(case.path, case.operation.schema.raw_schema["paths"], ask, choose)
