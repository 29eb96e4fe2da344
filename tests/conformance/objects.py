"""What exists in a running gateway, by the document alone: the objects of `/hosts/{host}` are those of `GET /hosts`."""

import time
import urllib.parse

# A list is asked for again after this time, because calls create and remove objects.
FRESH_S = 3

listed = {}


def path_of(template, paths, ask, choose):
    """Fills in the parameters of a path from the left, because a list may be one of the former object.

    `ask` answers a GET with JSON, and `choose` returns the value of a parameter, given its name and those that exist.
    """
    path, above = "", ""
    for part in template.split("/")[1:]:
        if part.startswith("{"):
            names = existing(path, part[1:-1], ask) if "get" in paths.get(above, {}) else []
            path += "/" + urllib.parse.quote(choose(part[1:-1], names), safe="")
        else:
            path += "/" + part
        above += "/" + part
    return path


def existing(path, parameter, ask):
    """The ids and names in a list."""
    names, at = listed.get(path, ([], None))
    if at is not None and time.monotonic() - at < FRESH_S:
        return names
    page = ask(path)
    items = page.get("items", []) if isinstance(page, dict) else page or []
    names = [
        item[key]
        for item in items
        if isinstance(item, dict)
        for key in dict.fromkeys((parameter, "id", "name"))
        if isinstance(item.get(key), str)
    ]
    listed[path] = (names, time.monotonic())
    return names
