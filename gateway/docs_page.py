"""`/docs`: both descriptions of the API as one page. No script, no asset from elsewhere, nothing to build."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #1b1f2a; --soft: #535a6d; --line: #dfe3ea;
  --link: #3546c4; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #12141a; --card: #1a1d26; --ink: #e7e9ef; --soft: #a3aabb; --line: #2c313d; --link: #9da8ff; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 62rem; padding: 1rem; background: var(--ground);
  color: var(--ink); overflow-wrap: anywhere; }
a { color: var(--link); }
h1 { font-size: 1.45rem; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 8px; margin: .4rem 0; padding: 0 .9rem; }
summary { cursor: pointer; padding: .45rem 0; color: var(--soft); }
summary > code:first-child { color: var(--ink); font-weight: 600; }
div { overflow-x: auto; margin-bottom: .8rem; }
table { border-collapse: collapse; min-width: 100%; overflow-wrap: normal; }
th, td { border-top: 1px solid var(--line); padding: .25rem 1rem .25rem 0; text-align: left; vertical-align: top; }
thead th { border: 0; color: var(--soft); font-size: .85rem; }
code { font-family: ui-monospace, monospace; font-size: .88em; }
"""
POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)

Document = Mapping[str, Any]

ALWAYS = ("500", "503")  # said once, for all calls


def docs_page(openapi: Document, asyncapi: Document) -> str:
    """The page, complete HTML."""
    version = escape(openapi["info"]["version"])
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Phaseline API</title>',
            f"<style>{STYLE}</style><main><h1>Phaseline API {version}</h1><p>The same for machines: ",
            '<a href="/openapi.json">OpenAPI 3.1</a>, <a href="/asyncapi.json">AsyncAPI 3.0</a>.</p>',
            '<h2 id="http">HTTP</h2><p>Any call may also answer 500, a mistake that was logged, or 503, to come back ',
            "after <code>Retry-After</code> seconds.</p>",
            *_calls(openapi),
            '<h2 id="streams">Streams</h2>',
            *_channels(asyncapi),
            '<h2 id="schemas">Schemas</h2>',
            *_schemas({**asyncapi["components"]["schemas"], **openapi["components"]["schemas"]}),
            "</main></html>",
        ]
    )


def _calls(openapi: Document) -> Iterator[str]:
    for path, methods in openapi["paths"].items():
        for method, call in methods.items():
            yield f'<details id="{escape(call["operationId"])}"><summary><code>{method.upper()} {escape(path)}</code> '
            yield f"{_text(call['summary'])}</summary>"
            rows = [
                (each["name"], each["in"], _type(each["schema"]), _text(each.get("description", "")))
                for each in call["parameters"]
            ]
            yield from _table(("parameter", "in", "type", ""), rows)
            if "requestBody" in call:
                yield f"<p>Body: {_type(call['requestBody']['content']['application/json']['schema'])}</p>"
            answers = [
                (status, ", ".join(answer.get("content", {})), _types(answer), _text(answer["description"]))
                for status, answer in call["responses"].items()
                if status not in ALWAYS
            ]
            yield from _table(("status", "form", "type", ""), answers)
            yield "</details>"


def _channels(asyncapi: Document) -> Iterator[str]:
    messages = asyncapi["components"]["messages"]
    for name, channel in asyncapi["channels"].items():
        yield f'<details id="channel-{escape(name)}"><summary><code>{escape(channel["address"])}</code> '
        yield f"{_text(channel['description'])}</summary>"
        query = channel["bindings"]["ws"]["query"]["properties"]
        yield from _table(("query", "type"), [(each, _type(schema)) for each, schema in query.items()])
        for operation in asyncapi["operations"].values():
            if operation["channel"]["$ref"].endswith(f"/{name}"):
                yield f"<p>{_text(operation['summary'])}</p>"
                sent = [each["$ref"].rsplit("/", 1)[1] for each in operation["messages"]]
                yield from _table(("frame", "type"), [(each, _type(messages[each]["payload"])) for each in sent])
        yield "</details>"


def _schemas(schemas: Document) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        yield f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code> '
        yield f"{_text(schema.get('description', ''))}</summary>"
        required = schema.get("required", ())
        rows = [
            (field, "" if field in required else "optional", _type(of), _text(of.get("description", "")))
            for field, of in schema.get("properties", {}).items()
        ]
        yield from _table(("field", "", "type", ""), rows)
        if not rows:
            yield f"<p>{_type(schema)}</p>"
        yield "</details>"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Cells but the first hold HTML already."""
    if rows:
        yield f"<div tabindex=0><table><thead><tr>{''.join(f'<th scope=col>{each}' for each in head)}</thead><tbody>"
        for first, *rest in rows:
            yield f"<tr><th scope=row><code>{escape(first)}</code>{''.join(f'<td>{each}' for each in rest)}"
        yield "</tbody></table></div>"


def _types(answer: Document) -> str:
    return ", ".join(_type(media["schema"]) for media in answer.get("content", {}).values())


def _type(schema: Document) -> str:
    """A schema in a few words, with links to the named ones."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[1])
        return f'<a href="#schema-{name}">{name}</a>'
    for word in ("oneOf", "anyOf"):
        if word in schema:
            return " or ".join(map(_type, schema[word]))
    if "const" in schema:
        return f"<code>{escape(str(schema['const']))}</code>"
    if "enum" in schema:
        return ", ".join(f"<code>{escape(str(each))}</code>" for each in schema["enum"])
    kind = escape(str(schema.get("type", "any")))
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if kind == "object" and isinstance(of := schema.get("additionalProperties"), dict):
        return f"object of {_type(of)}"
    bounds = [f"{sign} {schema[name]}" for name, sign in _BOUNDS if name in schema]
    return " ".join([escape(str(schema.get("format", kind))), *bounds])


def _text(text: str) -> str:
    """Prose with `code` in it."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


_BOUNDS = (("minimum", "≥"), ("maximum", "≤"), ("exclusiveMinimum", "&gt;"), ("maxLength", "length ≤"))
