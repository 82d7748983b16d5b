"""Tries the Python client against the agent at the socket given; the Rust tests start it."""
import sys

from vnfpool_sdk import COMMIT, Client, Refused

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
print("ok")
