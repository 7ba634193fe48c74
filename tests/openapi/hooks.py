"""Makes bodies that fit their schema fit what a schema cannot say, too."""

import ipaddress

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.format(
    "roomcast-network",
    st.one_of(st.ip_addresses().map(str), st.ip_addresses(v=4).map(lambda address: f"{address}/32")),
)

# Of other letters only some are allowed in names, and lengths are of bytes.
PLAIN_FIELDS = {"room", "rooms", "userId", "id", "reason", "match", "epoch"}


LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"


def plain(value):
    if isinstance(value, str):
        return "".join(letter if letter.isascii() else LETTERS[ord(letter) % len(LETTERS)] for letter in value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def network(value):
    """A format is not always kept, and the schema says nothing else of a network."""
    if not isinstance(value, str):
        return value
    try:
        ipaddress.ip_network(value, strict=False)
        return value
    except ValueError:
        return f"192.0.2.{sum(map(ord, value)) % 256}"


def mapped(body):
    """Leaves a body that breaks its schema as broken as it is: patterns and lengths do not tell other letters apart."""
    if not isinstance(body, dict):
        return plain(body)
    fields = {field: plain(value) if field in PLAIN_FIELDS else value for field, value in body.items()}
    if "network" in fields:
        fields["network"] = network(fields["network"])
    if "after" in fields:
        fields["after"] = mapped(fields["after"])
    return fields


@schemathesis.hook
def before_call(context, case, kwargs):
    case.body = mapped(case.body)
