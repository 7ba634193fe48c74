"""The pure parts: names, addresses, waits, and messages of the server."""

from __future__ import annotations

import errno
import pickle
import unittest

from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage, InvalidStatus, InvalidUpgrade
from websockets.http11 import Response

from roomcast import RoomcastError, name_problem
from roomcast import _wire as wire
from roomcast._handshake import Disconnect, cause_of_close, explain_handshake
from roomcast._pacer import Pacer, backoff
from roomcast._url import socket_url
from roomcast._wire import Fields, MessageError


class Names(unittest.TestCase):
    def test_names_follow_the_documented_alphabet_and_length(self) -> None:
        for name in ["lobby", "Grüße", "部屋", "हिन्दी", "Ⓐ", "٣", "a-_.:@~+#=/9", "x" * 128]:
            self.assertEqual(name_problem(name), "", name)
        for name, words in [
            ("", "at least one character"),
            ("a b", "' ' is not allowed"),
            ("a?b", "'?' is not allowed"),
            ("<b>", "'<' is not allowed"),
            ("a\u200bb", "'\\u200b' is not allowed"),
            ("a\ud800", "'\\ud800' is not allowed"),
            ("🙂", "is not allowed"),
            ("x" * 129, "129 bytes; 128 are allowed"),
            ("ü" * 65, "130 bytes"),
            ("e\u0301", "NFC"),
        ]:
            self.assertIn(words, name_problem(name), name)
        self.assertIn("not int", name_problem(5))


class Addresses(unittest.TestCase):
    def test_http_becomes_ws_and_what_is_asked_for_stands_in_the_query(self) -> None:
        for given, fields, wanted in [
            ("https://chat.example/ws", {"userId": "alice"}, "wss://chat.example/ws?userId=alice"),
            ("http://localhost:8080/ws", {"userId": "", "name": ""}, "ws://localhost:8080/ws"),
            ("http://localhost:8080/ws?name=Bob", {"name": ""}, "ws://localhost:8080/ws?name=Bob"),
            (
                "ws://[::1]:8080/ws?a=1&userId=bob&name=Bob&names=2#top",
                {"userId": "Zoë+/", "name": "Zoë & +"},
                "ws://[::1]:8080/ws?a=1&names=2&userId=Zo%C3%AB%2B%2F&name=Zo%C3%AB%20%26%20%2B",
            ),
            ("WSS://chat.example", {}, "wss://chat.example/"),
        ]:
            self.assertEqual(socket_url(given).asking(fields), wanted)

    def test_a_mistake_is_told_when_the_address_is_given(self) -> None:
        for url, words in [
            ("/ws", "is no URL, which must be whole"),
            ("", "is no URL"),
            ("ws://chat.example/a b", "is no URL"),
            ("localhost:8080/ws", "has the scheme localhost; ws, wss, http and https are allowed"),
            ("ftp://chat.example/ws", "has the scheme ftp"),
            ("ws:///ws", "names no host"),
            ("ws://chat.example:99999/ws", "is no URL (Port out of range"),
            ("ws://chat.example:0/ws", "names no port"),
            ("ws://[::1/ws", "is no URL (Invalid IPv6 URL)"),
            ("ws://a..b/ws", "is no URL"),
            ("ws://alice:secret@chat.example/ws", "a user and a password"),
        ]:
            with self.assertRaises(ValueError) as caught:
                socket_url(url)
            self.assertIn(words, str(caught.exception), url)
            self.assertNotIn("secret", str(caught.exception))
        with self.assertRaises(TypeError):
            socket_url(5)  # type: ignore[arg-type]


class Waits(unittest.TestCase):
    def test_the_wait_before_attempt_n_is_within_half_a_second_and_its_bound(self) -> None:
        self.assertEqual([backoff(n, 0) for n in range(7)], [0.5] * 7)
        self.assertEqual([backoff(n, 1) for n in range(7)], [1, 1.5, 2.5, 4.5, 8.5, 16.5, 20])
        self.assertEqual(backoff(5000, 1), 20)

    def test_the_pace_is_four_fifths_of_the_rate_after_half_of_the_burst(self) -> None:
        pacer = Pacer(rate=50, burst=20)
        for _ in range(10):
            self.assertEqual(pacer.wait(5), 0)
            pacer.charge(5)
        self.assertAlmostEqual(pacer.wait(5), 1 / 40)
        self.assertEqual(pacer.wait(5 + 1 / 40), 0)
        pacer.empty(6)
        self.assertAlmostEqual(pacer.wait(6), 1 / 40)
        self.assertEqual(Pacer(0, 0).wait(0), 0, "a rate of 0 does not limit")

    def test_a_clock_that_stands_still_gives_no_tokens(self) -> None:
        pacer = Pacer(rate=10, burst=1)
        pacer.charge(5)
        self.assertAlmostEqual(pacer.wait(4), 1 / 8)


class Handshakes(unittest.TestCase):
    def refusal(self, status: int, text: str, *, with_token: bool = False, **headers: str) -> Disconnect:
        found = {"Content_Type": "text/plain; charset=utf-8", **headers}
        lines = Headers([(name.replace("_", "-"), value) for name, value in found.items()])
        response = Response(status, "Reason", lines, f"{text}\n".encode())
        return explain_handshake(InvalidStatus(response), with_token=with_token)

    def test_a_refusal_is_told_by_its_cause(self) -> None:
        for status, text, with_token, cause, is_final in [
            (403, "banned: contempt", False, "banned", True),
            (403, "banned", False, "banned", True),
            (403, "pages of origin https://other.example may not connect", False, "origin", True),
            (403, "the back-end says no", True, "forbidden", True),
            (400, "a token was sent, and this server takes none", True, "bad_request", True),
            (401, "a token is needed", False, "token_needed", False),
            (401, "the token has expired", True, "token_refused", False),
            (404, "nothing is here", False, "not_found", False),
            (426, "this is a WebSocket", False, "no_upgrade", False),
            (429, "this address sends more requests than it may", False, "too_many", False),
            (503, "the server is shutting down", False, "unavailable", False),
            (504, "no decision", False, "unavailable", False),
            (200, "hello", False, "unreachable", False),
        ]:
            found = self.refusal(status, text, with_token=with_token)
            self.assertEqual(found, Disconnect(cause, status, text.replace("banned: ", ""), 0.0, is_final))  # type: ignore[arg-type]

    def test_an_answer_that_is_not_the_servers_own_ends_nothing(self) -> None:
        for status in [400, 403]:
            found = self.refusal(status, "<html>", Content_Type="text/html")
            self.assertEqual((found.is_final, found.reason), (False, "Reason"))

    def test_the_wait_that_the_server_asks_for_is_read(self) -> None:
        self.assertEqual(self.refusal(503, "busy", Retry_After="7").wait, 7)
        self.assertEqual(self.refusal(503, "busy", Retry_After="Sun, 29 Nov 2026 17:00:00 GMT").wait, 0)

    def test_other_failures_are_told_apart(self) -> None:
        for error, cause in [
            (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "unreachable"),
            (OSError(errno.ENETUNREACH, "unreachable"), "network"),
            (InvalidMessage("no HTTP"), "unreachable"),
            (InvalidUpgrade("Upgrade", None), "no_upgrade"),
            (TimeoutError(), "unreachable"),
        ]:
            found = explain_handshake(error, with_token=False)
            self.assertEqual((found.cause, found.code, found.is_final), (cause, 0, False), error)
            self.assertNotEqual(found.reason, "")

    def test_close_codes_have_causes(self) -> None:
        causes = {4003: "token_expired", 4501: "flooded", 4502: "stalled", 4503: "banned", 4504: "replaced"}
        causes |= {1000: "lost", 1006: "lost", 4002: "lost", 4499: "lost", 4500: "server", 4999: "server", 5000: "lost"}
        self.assertEqual({code: cause_of_close(code) for code in causes}, causes)


class Wire(unittest.TestCase):
    def test_fields_of_another_kind_are_mistakes_that_are_named(self) -> None:
        chat = {"type": "chat", "room": "lobby", "userId": "bob", "text": "hello", "ts": 1, "seq": 1}
        self.assertTrue(wire.message(Fields(chat), "bob").own)
        for name, value, words in [
            ("seq", "1", "seq is str, not int"),
            ("seq", True, "seq is bool, not int"),
            ("text", None, "chat has no text"),
            ("name", 5, "name is int, not str"),
        ]:
            with self.assertRaisesRegex(MessageError, words):
                wire.message(Fields({**chat, name: value}), "bob")

    def test_a_text_that_is_no_message_is_refused(self) -> None:
        texts: list[str | bytes] = ["", "[]", "null", "{", "[" * 100_000, b"\xff"]
        for text in texts:
            with self.assertRaises(MessageError, msg=repr(text[:10])):
                wire.decode(text)

    def test_fields_that_are_absent_are_not_sent(self) -> None:
        self.assertEqual(wire.encode({"a": None, "b": {"c": None}, "d": "ü"}), '{"b":{"c":null},"d":"ü"}')


class Errors(unittest.TestCase):
    def test_an_error_shows_its_code(self) -> None:
        error = RoomcastError("muted", "too loud", retry_after_ms=500)
        self.assertEqual((str(error), error.code, error.message), ("muted: too loud", "muted", "too loud"))
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual((str(copy), copy.retry_after_ms), (str(error), 500))


if __name__ == "__main__":
    unittest.main()
