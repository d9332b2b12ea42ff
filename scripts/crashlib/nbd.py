# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: The Parallax authors
"""An NBD client with simple replies (NetworkBlockDevice/nbd, doc/proto.md), many in flight."""

import socket
import struct

from stage import Failure, require

READ, WRITE, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 3, 4, 6
FUA = 1
OPTION_GO, REPLY_ACK, REPLY_ERROR = 7, 1, 1 << 31
REQUEST, REPLY = struct.Struct(">IHHQQI"), struct.Struct(">IIQ")
REQUEST_MAGIC, REPLY_MAGIC = 0x25609513, 0x67446698


class Client:
    def __init__(self, path, export):
        self.peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.peer.settimeout(60)
        self.peer.connect(str(path))
        require(self._take(18)[:8] == b"NBDMAGIC", "that is no NBD server")
        name = export.encode()
        data = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
        self.peer.sendall(struct.pack(">I", 3) + b"IHAVEOPT"
                          + struct.pack(">II", OPTION_GO, len(data)) + data)
        self.byte_count, kind = 0, 0
        while kind != REPLY_ACK:
            _, _, kind, length = struct.unpack(">QIII", self._take(20))
            require(kind < REPLY_ERROR, f"the NBD server refused {export}")
            data = self._take(length)
            if data[:2] == bytes(2):  # NBD_INFO_EXPORT
                self.byte_count, = struct.unpack_from(">Q", data, 2)
        self.heard = bytearray()
        self.lengths = {}  # Of the reads in flight.

    def _take(self, count):
        data = self.peer.recv(count, socket.MSG_WAITALL)
        if len(data) < count:
            raise Failure("the NBD server hung up")
        return data

    def send(self, command, cookie, offset=0, count=0, data=b"", flags=0):
        if command == READ:
            self.lengths[cookie] = count
        self.peer.sendall(REQUEST.pack(REQUEST_MAGIC, flags, command, cookie, offset, count) + data)

    def receive(self):
        """Waits for bytes; all answers that are whole now: (cookie, error, data)."""
        more = self.peer.recv(1 << 18)
        if not more:
            raise Failure("the NBD server hung up")
        self.heard += more
        answers, at = [], 0
        while len(self.heard) - at >= REPLY.size:
            magic, error, cookie = REPLY.unpack_from(self.heard, at)
            require(magic == REPLY_MAGIC, "the NBD server's answer is no answer")
            length = self.lengths.get(cookie, 0) if error == 0 else 0
            if len(self.heard) - at < REPLY.size + length:
                break
            data = bytes(self.heard[at + REPLY.size:at + REPLY.size + length])
            answers.append((cookie, error, data))
            self.lengths.pop(cookie, None)
            at += REPLY.size + length
        del self.heard[:at]
        return answers

    def call(self, command, offset=0, count=0, data=b"", flags=0):
        """One request by itself: (error, data)."""
        self.send(command, 1, offset, count, data, flags)
        while True:
            for _, error, answer in self.receive():
                return error, answer

    def read_all(self):
        parts, step = [], 1 << 20
        for offset in range(0, self.byte_count, step):
            count = min(step, self.byte_count - offset)
            error, data = self.call(READ, offset, count)
            require(error == 0, f"bytes {offset} to {offset + count} cannot be read: error {error}")
            parts.append(data)
        return b"".join(parts)

    def close(self):
        self.peer.close()
