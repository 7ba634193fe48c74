"""Converts the Autobahn WebSocket test suite (Apache-2.0) and its library (MIT) to Python 3, and loads its client.

Both were written for Python 2, whose strings are bytes. Strings of the suite stay strings of Python 3 here, with a
character for each byte, and become bytes where the library takes them.
"""

import binascii
import codecs
import json
import pathlib
import re
import sys
import tarfile
import types

# Changes that files need for Python 3: patterns, each with its replacement.
CONVERSIONS = {
    "autobahn/websocket/protocol.py": [(r"payload_len / len\(payload\)", "payload_len // len(payload)")],
    "autobahntestsuite/fuzzing.py": [
        (r"^from (case|caseset|report) import", r"from autobahntestsuite.\1 import"),
        (r"(textwrap), pkg_resources", r"\1"),
        (r"^( *)print .*", r"\1pass"),
        (r"(\S+)\.has_key\((.*?)\)", r"\2 in \1"),
    ],
    "autobahntestsuite/caseset.py": [(r"(\S+)\.has_key\((.*?)\)", r"\2 in \1")],
    # Compression is not tried. 9.9.1 is in no list of the suite.
    "autobahntestsuite/case/__init__.py": [
        (r"^from (case\w+)", r"from .\1"),
        (r"^.*(12_x_x|12_X_X|13_X_X|case9_9_1).*$", ""),
    ],
    "autobahntestsuite/case/case*.py": [
        (r"^from (case\w*) import", r"from .\1 import"),
        (r"^( *)print .*", r"\1pass"),
        (r"\bxrange\(", "range("),
        (r"\(object, Case, \)", "(Case, )"),
        (r"len\(self\.payload\) / ", "len(self.payload) // "),
    ],
    # The only text of the suite that is not written as bytes.
    "autobahntestsuite/case/case6_2_[123].py": [(r'^( *PAYLOAD\d? = ".*")\r?$', r'\1.encode().decode("latin-1")')],
}

# The library without its parts for other protocols, and the suite without its other modes.
INITS = {
    "autobahn/__init__.py": '__version__ = version = "0.10.9"\n',
    "autobahntestsuite/__init__.py": 'version = "25.10.1"\n',
}


def convert(sources, folder):
    """Unpacks the archives in `sources` into `folder`, converted."""
    for archive in pathlib.Path(sources).glob("*.tar.gz"):
        with tarfile.open(archive) as tar:
            for member in tar.getmembers():
                path = pathlib.PurePosixPath(member.name)
                # Without the folder that is named after the version; only files of the packages.
                if member.isfile() and path.suffix == ".py" and len(path.parts) > 2 and ".." not in path.parts:
                    target = pathlib.Path(folder, *path.parts[1:])
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(tar.extractfile(member).read())
    for pattern, changes in CONVERSIONS.items():
        for file in pathlib.Path(folder).glob(pattern):
            text = file.read_text("utf-8")
            for old, new in changes:
                text = re.sub(old, new, text, flags=re.MULTILINE)
            file.write_text(text, "utf-8")
    for name, text in INITS.items():
        pathlib.Path(folder, name).write_text(text)


def to_bytes(text):
    return text.encode("latin-1") if isinstance(text, str) else text


def to_text(data):
    return data.decode("latin-1") if isinstance(data, bytes) else data


class Masker:
    """As the library's, which masks byte by byte; the client would take minutes."""

    def __init__(self, mask, _length=None):
        self.mask, self.position = mask, 0

    def pointer(self):
        return self.position

    def process(self, data):
        start = self.position % 4
        mask = (self.mask * (len(data) // 4 + 2))[start : start + len(data)]
        self.position += len(data)
        return (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(data), "big")


class Validator:
    """As the library's, for the same reason. It does not tell where text is bad, which only unread logs ask for."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def validate(self, data):
        try:
            self.decoder.decode(to_bytes(data))
        except UnicodeDecodeError:
            return False, False, 0, 0
        return True, not self.decoder.getstate()[0], len(data), len(data)


def load(folder):
    """The suite's module of its client."""
    sys.path.insert(0, folder)
    import txaio
    from twisted.internet import reactor

    txaio.use_twisted()
    txaio.config.loop = reactor
    # No server of these tests has TLS, and no report is wanted in HTML.
    sys.modules["twisted.internet.ssl"] = ssl = types.ModuleType("ssl")
    sys.modules["twisted.internet"].ssl = ssl
    ssl.ClientContextFactory = lambda: None
    sys.modules["autobahntestsuite.report"] = report = types.ModuleType("report")
    for name in ["CSS_COMMON", "CSS_DETAIL_REPORT", "CSS_MASTER_REPORT", "JS_MASTER_REPORT"]:
        setattr(report, name, "")
    b2a_hex = binascii.b2a_hex
    binascii.b2a_hex = lambda data: b2a_hex(to_bytes(data)).decode()

    from autobahn.websocket import protocol, utf8validator

    utf8validator.Utf8Validator = protocol.Utf8Validator = Validator
    protocol.createXorMasker = Masker
    from autobahntestsuite import fuzzing

    adapt(fuzzing)
    return fuzzing


def adapt(fuzzing):
    """Brings strings and bytes together where the suite and the library meet."""
    from autobahntestsuite.case.case import Case

    def sending(name, at):
        method = getattr(fuzzing.WebSocketClientProtocol, name)

        def send(self, *args, **named):
            args = [to_bytes(value) if index == at else value for index, value in enumerate(args)]
            return method(self, *args, **{key: to_bytes(value) for key, value in named.items()})

        setattr(fuzzing.FuzzingClientProtocol, name, send)

    for name, at in {"sendFrame": 1, "sendMessage": 0, "sendMessageFrameData": 0, "sendCloseFrame": 1}.items():
        sending(name, at)

    common = fuzzing.FuzzingProtocol
    on_message, on_pong = common.onMessage, common.onPong
    common.onMessage = lambda self, data, binary: on_message(self, to_text(data), binary)
    common.onPong = lambda self, data: on_pong(self, to_text(data))
    # The log of what went over the wire, which nobody reads here; one case reads the counts of frames.
    common.logRxOctets = common.logTxOctets = common.logRxFrame = lambda *_: None

    def count_frame(self, head, *_):
        self.txFrameStats[head.opcode] = self.txFrameStats.get(head.opcode, 0) + 1

    common.logTxFrame = count_frame
    fuzzing.asciiLogData = lambda data, *_: to_text(data)[:64]

    def compare(_, one, other):
        return json.dumps(one, default=to_text) == json.dumps(other, default=to_text)

    # The suite compares pickles, which tell equal objects of Python 3 apart.
    Case.compare = compare
