"""A client for the vnfpool agent's SDK socket, without dependencies.

The protocol is described in docs/sdk.md: protobuf messages (crates/base/wire/proto/sdk.proto), each
behind its length. A message is a list of (field number, value) here, a value an int, bytes, or a
list for a message inside.

    client = Client("/run/vnfpool/sdk.sock", "counter", [("counts", COMMIT)])
    role = client.wait_active()
    client.put(role["slot"], 0, role["epoch"], [(b"key", b"value", 60), (b"old", None, 0)])
    assert client.commit(role["slot"], 0)["held"]
"""
import socket
import struct

NONE, EVENTUAL, BOUNDED, COMMIT = range(4)
SPARE, STANDBY, ACTIVE = range(3)
GONE = "the agent is gone: connect again with has_state=True, and put everything again"


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def encode(fields):
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            value = encode(value) if isinstance(value, list) else value
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return bytes(out)


def decode(data):
    """The fields of a message, by number; of a repeated one all values."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = number()
        value = number()
        if tag & 7 == 2:
            value, at = data[at : at + value], at + value
        elif tag & 7 != 0:
            raise ValueError("this protocol has no field of type %d" % (tag & 7))
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def one(fields, number, default):
    return fields.get(number, [default])[-1]


def op(data):
    fields = decode(data)
    return one(fields, 1, b""), one(fields, 2, None), one(fields, 3, 0)


class Refused(Exception):
    """The agent's code and text."""


class Client:
    def __init__(self, path, function, classes, has_state=False):
        """With has_state this process has what it put before, and puts it again when asked to."""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.buffer, self.last, self.ids, self.roles = b"", 0, 0, {}
        self.refused = set()
        # Slots and classes of which the agent wants everything again: put it, then call restored.
        self.wanted = set()
        classes = [(4, [(1, n.encode()), (2, [(1, level)]), (3, 1), (4, 1)]) for n, level in classes]
        register = [(1, 1), (2, function.encode())] + classes + [(5, [(1, 1)]), (6, int(has_state))]
        self.send(1, register)
        self.read_until(1)

    def send(self, kind, fields):
        message = encode([(kind, fields)])
        try:
            self.socket.sendall(struct.pack(">I", len(message)) + message)
        except ConnectionError as error:
            raise ConnectionError(GONE) from error

    def read(self):
        """The next message: its kind (a field number of Reply) and its fields."""
        while True:
            if len(self.buffer) >= 4:
                (length,) = struct.unpack(">I", self.buffer[:4])
                if len(self.buffer) >= 4 + length:
                    message, self.buffer = self.buffer[4 : 4 + length], self.buffer[4 + length :]
                    ((kind, (data, *_)),) = decode(message).items()
                    return self.take(kind, decode(data))
            try:
                more = self.socket.recv(65536)
            except ConnectionError as error:
                raise ConnectionError(GONE) from error
            if not more:
                raise ConnectionError(GONE)
            self.buffer += more

    def take(self, kind, fields):
        if kind == 2:
            slot = one(fields, 1, 0)
            self.roles[slot] = {"slot": slot, "role": one(fields, 3, 0), "epoch": one(fields, 4, 0)}
        elif kind == 4:
            self.refused.add((one(fields, 5, 0), one(fields, 6, 0)))
            raise Refused(one(fields, 3, b"").decode(), one(fields, 4, b"").decode())
        elif kind == 11:
            self.wanted.add((one(fields, 1, 0), one(fields, 2, 0)))
        elif kind == 12:
            slot = one(fields, 1, 0)
            self.roles.pop(slot, None)
            self.wanted = {wanted for wanted in self.wanted if wanted[0] != slot}
        elif kind == 13:
            raise Refused(one(fields, 1, b"").decode(), one(fields, 2, b"").decode())
        return kind, fields

    def read_until(self, kind):
        while True:
            found, fields = self.read()
            if found == kind:
                return fields

    def wait_active(self):
        while True:
            for role in self.roles.values():
                if role["role"] == ACTIVE:
                    return role
            self.read()

    def put(self, slot, index, epoch, ops):
        """Puts (key, value, ttl_s) each, deletes where the value is None; waits until it is taken, or
        raises Refused, which the next commit then says as well."""
        self.last += len(ops)
        value = lambda v: [] if v is None else [(2, v)]
        ops = [(5, [(1, key)] + value(v) + [(3, ttl)]) for key, v, ttl in ops]
        self.send(3, [(1, slot), (2, index), (3, epoch), (4, self.last)] + ops)
        while one(self.read_until(3), 1, 0) < self.last:
            pass

    def ask(self, kind, answer, fields):
        self.ids += 1
        self.send(kind, [(1, self.ids)] + fields)
        return self.read_until(answer)

    def commit(self, slot, index):
        """Whether the successor has everything put before. False with the code "refused", and not asked, if
        some of what was put into the class since the last commit was refused: the agent does not have it
        either. A client is one caller; what several threads put has to be kept apart by them."""
        if (slot, index) in self.refused:
            self.refused.remove((slot, index))
            return {"held": False, "code": "refused"}
        fields = self.ask(4, 5, [(2, slot), (3, index)])
        return {"held": bool(one(fields, 2, 0)), "code": one(fields, 3, b"").decode()}

    def report(self, healthy, reason="", load=0, capacity=0):
        """How the function is; unhealthy is a fault of the element, which resigns. The load is in units of
        the function's choice, of which it can carry `capacity`; 0 when it does not say."""
        self.send(2, [(1, int(healthy)), (2, reason.encode()), (3, load), (4, capacity)])

    def restored(self, slot, index, epoch):
        """Everything that the agent wanted again is put."""
        self.wanted.discard((slot, index))
        self.send(9, [(1, slot), (2, index), (3, epoch)])

    def get(self, slot, index, key):
        return one(self.ask(5, 6, [(2, slot), (3, index), (4, key)]), 2, None)

    def range(self, slot, index, start=b"", end=b""):
        fields = self.ask(6, 7, [(2, slot), (3, index), (4, start), (5, end)])
        return [op(data) for data in fields.get(2, [])]
