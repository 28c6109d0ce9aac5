"""HTTP requests in numbers: from a process of its own, by bare sockets, so that the load takes little of the
machine that the server needs.

Requests are bytes made beforehand; answers are read by their `Content-Length`. Nothing else of HTTP is known.
"""

from __future__ import annotations

import random
import re
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Outcome", "burst", "hammer", "pace", "post"]

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)

Maker = Callable[[int], bytes]
"""The request with this number."""


@dataclass(slots=True)
class Outcome:
    """What became of the requests.

    Attributes:
        seconds: from the first request to the last answer.
        times: seconds from when a request was due to its answer, each.
        statuses: HTTP status → how many.
    """

    seconds: float = 0.0
    times: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.times) / self.seconds


def post(path: str, body: bytes) -> bytes:
    """A `POST` of JSON."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class _Connections:
    """Kept-alive connections with at most one request in each."""

    def __init__(self, port: int, count: int) -> None:
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._due: dict[int, float] = {}
        self._read: dict[int, bytes] = {}
        for _ in range(count):
            opened = socket.create_connection(("127.0.0.1", port))
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.setblocking(False)
            self._sockets[opened.fileno()] = opened
            self._poll.register(opened, select.EPOLLIN)
        self.idle = list(self._sockets)
        self.outcome = Outcome()

    def send(self, request: bytes, due: float) -> None:
        connection = self.idle.pop()
        self._due[connection], self._read[connection] = due, b""
        self._sockets[connection].setblocking(True)
        self._sockets[connection].sendall(request)
        self._sockets[connection].setblocking(False)

    def receive(self, timeout: float) -> None:
        """Take what has come within so many seconds."""
        for connection, _ in self._poll.poll(timeout):
            part = self._sockets[connection].recv(65536)
            if not part:
                raise ConnectionError("the server has closed a connection")
            answer = self._read[connection] = self._read[connection] + part
            end, length = answer.find(b"\r\n\r\n"), _LENGTH.search(answer)
            if end > 0 and length and len(answer) >= end + 4 + int(length[1]):
                self.outcome.times.append(time.perf_counter() - self._due.pop(connection))
                self.outcome.statuses[int(answer[9:12])] += 1
                self.idle.append(connection)

    def finish(self, began: float) -> Outcome:
        while self._due:
            self.receive(1)
        self.outcome.seconds = time.perf_counter() - began
        for each in self._sockets.values():
            each.close()
        return self.outcome


def hammer(port: int, make: Maker, connections: int, seconds: float) -> Outcome:
    """A next request in each connection as soon as the answer to the last one is there."""
    every, number, began = _Connections(port, connections), 0, time.perf_counter()
    while time.perf_counter() < began + seconds:
        while every.idle:
            every.send(make(number), time.perf_counter())
            number += 1
        every.receive(0.1)
    return every.finish(began)


def pace(port: int, make: Maker, connections: int, seconds: float, rate: float) -> Outcome:
    """Requests that come by chance (Poisson), so many a second; whatever finds no connection free waits for
    one, and its time counts from when it was due."""
    every, number, began = _Connections(port, connections), 0, time.perf_counter()
    arrivals, waiting = _arrivals(began, seconds, rate), deque[float]()
    due = next(arrivals, None)
    while due is not None or waiting:
        now = time.perf_counter()
        while due is not None and due <= now:
            waiting.append(due)
            due = next(arrivals, None)
        while waiting and every.idle:
            every.send(make(number), waiting.popleft())
            number += 1
        every.receive(0.1 if due is None else max(0.0, due - time.perf_counter()))
    return every.finish(began)


def burst(port: int, make: Maker, connections: int) -> Outcome:
    """One request in each connection, all at once."""
    every, began = _Connections(port, connections), time.perf_counter()
    for number in range(connections):
        every.send(make(number), began)
    return every.finish(began)


def _arrivals(began: float, seconds: float, rate: float) -> Iterator[float]:
    chance, at = random.Random(0), began
    while (at := at + chance.expovariate(rate)) < began + seconds:
        yield at
