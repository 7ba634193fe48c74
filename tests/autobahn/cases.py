"""Runs cases of the Autobahn WebSocket test suite against a server: `cases.py SOURCES ADDRESS [CASES]`.

Without names or patterns of cases, all are run but those of compression, and it is an error if they are not 301.
"""

import collections
import sys
import tempfile

import suite

# How many cases each group has. The suite has no group 8; 12 and 13 are those of compression.
GROUPS = {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}

# They tell of behaviour that RFC 6455 leaves open: a Close behind a large message, and close codes of 5000 and more.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


def has_passed(result):
    expected = "INFORMATIONAL" if result["id"] in INFORMATIONAL else "OK"
    return result["behavior"] == result["behaviorClose"] == expected


def run(fuzzing, address, cases):
    """The result of each case by its name; those that have failed are tried once more."""
    from twisted.internet import reactor

    results = {}

    class Factory(fuzzing.FuzzingClientFactory):
        def logCase(self, result):
            results[result["id"]] = result

        def clientConnectionLost(self, connector, _reason):
            if self.nextCase():
                return connector.connect()
            # The suite waits half a second for some echoes, which a busy machine may miss, but hardly twice.
            again = [name for name, result in results.items() if not has_passed(result)]
            if not again or self.spec["again"]:
                return reactor.stop()
            print("once more:", *again)
            start(again, again=True)

        def clientConnectionFailed(self, _connector, reason):
            print(f"{address}: {reason.getErrorMessage()}")
            reactor.stop()

    def start(names, again):
        servers = [{"agent": "echo", "url": f"ws://{address}"}]
        Factory({"servers": servers, "cases": names, "again": again})

    start(cases, again=False)
    reactor.run()
    return results


def main(sources, address, *cases):
    with tempfile.TemporaryDirectory() as folder:
        suite.convert(sources, folder)
        fuzzing = suite.load(folder)
        results = run(fuzzing, address, cases or [f"{name}.*" for name in GROUPS])

    failed = [result for result in results.values() if not has_passed(result)]
    for result in failed:
        print(
            f"{result['id']}: {result['behavior']}, {result['result']}"
            f" Close {result['remoteCloseCode']}: {result['behaviorClose']}, {result['resultClose']}"
        )
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    counts = collections.Counter(name.split(".")[0] for name in results)
    if not cases and counts != GROUPS:
        sys.exit(f"tests/autobahn: cases of each group: {dict(counts)}; these have to be run: {GROUPS}")
    sys.exit(1 if failed or not results else 0)


main(*sys.argv[1:])
