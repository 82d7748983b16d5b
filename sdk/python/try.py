"""Tries the Python client against the agent at the socket given. The Rust tests start it: it says what it
has done, and goes on when it is given a line, for which the agent has been looked at and changed."""
import sys

from vnfpool_sdk import COMMIT, GONE, Client, Refused


def done(what):
    print(what, flush=True)
    sys.stdin.readline()


client = Client(sys.argv[1], "python", [("counts", COMMIT)])
role = client.wait_active()
slot, epoch = role["slot"], role["epoch"]
client.put(slot, 0, epoch, [(b"a", b"1", 0), (b"b", b"2", 60), (b"c", b"3", 0)])
client.put(slot, 0, epoch, [(b"c", None, 0)])
assert client.get(slot, 0, b"a") == b"1"
assert client.get(slot, 0, b"c") is None
entries = client.range(slot, 0)
assert [(key, value) for key, value, _ in entries] == [(b"a", b"1"), (b"b", b"2")], entries
assert 0 < entries[1][2] <= 60
assert client.commit(slot, 0) == {"held": False, "code": "alone"}
try:
    client.put(slot, 0, epoch - 1, [(b"a", b"old", 0)])
except Refused as refused:
    assert refused.args[0] == "epoch", refused
else:
    raise AssertionError("an old epoch was taken")
assert client.get(slot, 0, b"a") == b"1"
# Once, for those who paused between their put and their commit.
assert client.commit(slot, 0) == {"held": False, "code": "refused"}
assert client.commit(slot, 0) == {"held": False, "code": "alone"}
client.socket.close()

# Another process of it, which has what it put: of a class that the agent has nothing of it is asked.
client = Client(sys.argv[1], "python", [("counts", COMMIT), ("more", COMMIT)], has_state=True)
role = client.wait_active()
slot, epoch = role["slot"], role["epoch"]
while (slot, 1) not in client.wanted:
    client.read()
assert client.commit(slot, 1) == {"held": False, "code": "restoring"}
client.put(slot, 1, epoch, [(b"m", b"1", 0)])
client.restored(slot, 1, epoch)
assert client.commit(slot, 1) == {"held": False, "code": "alone"}
assert client.wanted == set() and client.get(slot, 0, b"a") == b"1"

# What was reported is there when a later question is answered.
client.report(False, "no backend answers")
client.get(slot, 0, b"a")
done("unhealthy")
client.report(True, load=3, capacity=4)
client.get(slot, 0, b"a")
done("loaded")

# The slot goes, and what was asked for in it.
client.wanted.add((slot, 1))
while client.roles:
    client.read()
assert client.wanted == set()
done("gone")

# The agent has ended: who sends is told the same as who reads.
for call in (lambda: client.report(True), client.read):
    try:
        call()
    except ConnectionError as error:
        assert str(error) == GONE, error
    else:
        raise AssertionError("the agent has ended")
print("ok")
