"""Checks an OpenAPI document, and answers against it.

Reads {"document": ..., "exchanges": [{method, path, status, headers, content_type, body}, ...]} from standard input and
prints what is wrong; nothing is a success.
"""

import copy
import json
import re
import sys

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

BASE = "/api/engine/v2/uploads"
METHODS = {"get", "put", "post", "delete", "patch"}

# Responses that no test can cause: races, damage, time-outs, outages.
UNSEEN = {"408", "409", "422", "429", "500", "503"}
# A delete is refused while the store makes the object.
UNSEEN_OF = {("post", BASE, "412"), ("delete", f"{BASE}/{{id}}", "412")}

# Headers that are not always there.
SOMETIMES = {"link", "retry-after"}


def closed(schema):
    """The same with no key allowed that is not named."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        schema.setdefault("additionalProperties", False)
    return schema


def pointer(*steps):
    return "#/" + "/".join(step.replace("~", "~0").replace("/", "~1") for step in steps)


def template(document, path):
    """The documented path that `path` is one of; those without a placeholder first."""
    for known in sorted(document["paths"], key=lambda known: known.count("{")):
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", known), path):
            return known
    return None


def check_descriptions(document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            if not operation.get("summary"):
                yield f"{where} has no summary"
            for parameter in operation.get("parameters", []):
                if not parameter.get("description"):
                    yield f"{where}: {parameter['name']} has no description"
            for status, response in operation["responses"].items():
                if not response.get("description"):
                    yield f"{where}: {status} has no description"
    for name, schema in document["components"]["schemas"].items():
        if "$ref" not in schema and not schema.get("description"):
            yield f"schema {name} has no description"


def check(document, registry, exchange, seen):
    method, path = exchange["method"].lower(), BASE + exchange["path"]
    status = str(exchange["status"])
    where = f"{method} {path} -> {status}"
    known = template(document, path)
    operation = document["paths"].get(known, {}).get(method)
    if not operation:
        return [f"{where}: not documented"]
    response = operation["responses"].get(status)
    if not response:
        return [f"{where}: the status is not documented: {exchange['body']}"]
    seen.add((method, known, status))
    declared = {name.lower() for name in response.get("headers", {})}
    missing = declared - SOMETIMES - set(exchange["headers"])
    if missing:
        return [f"{where}: the headers {missing} are documented"]
    content = response.get("content", {})
    kind = exchange["content_type"].split(";")[0]
    if not content:
        return [f"{where}: a body that is not documented"] if exchange["body"] else []
    if "application/octet-stream" in content:
        return []
    if kind not in content:
        return [f"{where}: {kind} is not documented"]
    steps = ("paths", known, method, "responses", status, "content", kind, "schema")
    schema = {"$ref": "urn:document" + pointer(*steps)}
    errors = Draft202012Validator(schema, registry=registry).iter_errors(json.loads(exchange["body"]))
    return [f"{where}: {error.json_path}: {error.message}" for error in errors]


def main():
    given = json.load(sys.stdin)
    document = given["document"]
    validate(document)
    strict = copy.deepcopy(document)
    strict["components"]["schemas"] = closed(strict["components"]["schemas"])
    registry = Registry().with_resource("urn:document", Resource(strict, DRAFT202012))
    wrong, seen = list(check_descriptions(document)), set()
    for exchange in given["exchanges"]:
        wrong += check(document, registry, exchange, seen)
    for path, operations in document["paths"].items():
        for method in METHODS & operations.keys():
            for status in operations[method]["responses"]:
                if status not in UNSEEN and (method, path, status) not in seen | UNSEEN_OF:
                    wrong.append(f"{method} {path}: {status} was never answered")
    print("\n".join(wrong))
    return 1 if wrong else 0


sys.exit(main())
