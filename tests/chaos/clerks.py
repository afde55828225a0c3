"""Clerks who work through HTTP whatever happens, and remember what they were told: the oracle."""

import http.client
import json
import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 120.0
"""Seconds for which a clerk repeats a command that nobody answers; after that the service is not coming back."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said."""

    status: int
    headers: dict[str, str]
    body: Any


class Api:
    """One client's connection, made again whenever it is lost."""

    def __init__(self, port: int, authorization: str = "") -> None:
        self._port = port
        self._headers = {"Content-Type": "application/json"}
        if authorization:
            self._headers["Authorization"] = authorization
        self._connection: http.client.HTTPConnection | None = None

    def sign_in(self, username: str, password: str) -> str:
        """Sign in, for the header that says so from now on."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.send("POST", "/auth/token", f"username={username}&password={password}", form)
        assert answer.status == http.client.OK, answer.body
        self._headers["Authorization"] = f"Bearer {answer.body['access_token']}"
        return self._headers["Authorization"]

    def send(self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Ask once; a connection that is lost is an OSError or an HTTPException."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            self._connection.request(method, f"/api/v1{path}", body, self._headers | (headers or {}))
            answer = self._connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(text) if text else None)

    def insist(self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Ask until there is an answer other than 503."""
        deadline = time.monotonic() + PATIENCE
        while True:
            assert time.monotonic() < deadline, f"{method} {path} was never answered"
            try:
                answer = self.send(method, path, body, headers)
            except (OSError, http.client.HTTPException):
                time.sleep(0.05)
                continue
            if answer.status != http.client.SERVICE_UNAVAILABLE:
                return answer
            time.sleep(0.05)

    def get(self, path: str, headers: dict[str, str] | None = None) -> Answer:
        """Ask the read side, patiently."""
        return self.insist("GET", path, None, headers)

    def command(self, method: str, path: str, message: dict[str, Any]) -> Answer:
        """Send a command until it is answered, each time under the same key: it takes effect once."""
        return self.insist(method, path, json.dumps(message), {"Idempotency-Key": str(uuid.uuid4())})

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@dataclass
class Parcel:
    """What a clerk was told of a parcel last."""

    package_id: str
    tracking_code: str
    guide_number: str
    customer_id: str | None = None
    version: int = 1
    status: str = "ANNOUNCED"


@dataclass
class Clerk:
    """Works on parcels of its own, one command after the other, while the gate is open."""

    number: int
    port: int
    authorization: str
    gate: threading.Event
    pause: float = 0.0
    told: set[tuple[str, int, str]] = field(default_factory=set)
    """Every command that was acknowledged: of which package or customer, its version, and its type."""

    def __post_init__(self) -> None:
        self.api = Api(self.port, self.authorization)
        self.parcels: dict[str, Parcel] = {}
        self.customers: dict[str, int] = {}
        self.at_work = threading.Lock()
        self.failure: BaseException | None = None
        self._random = random.Random(self.number)  # noqa: S311 (a load, not a secret)
        self._made = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"clerk {self.number}")

    def start(self) -> None:
        """Come to work."""
        self._thread.start()

    def stop(self) -> None:
        """Go home."""
        self._ended.set()
        self._thread.join()
        self.api.close()

    def check(self) -> None:
        """Raise what went wrong."""
        if self.failure is not None:
            raise AssertionError(f"clerk {self.number} was let down") from self.failure

    def _work(self) -> None:
        try:
            while not self._ended.is_set():
                with self.at_work:
                    if self.gate.is_set():
                        self.act()
                self._ended.wait(self.pause if self.gate.is_set() else 0.02)
        except AssertionError as failure:
            self.failure = failure

    def act(self) -> None:
        """Send one command or another."""
        stored = [p for p in self.parcels.values() if p.status == "RECEIVED"]
        announced = [p for p in self.parcels.values() if p.status == "ANNOUNCED"]
        draw = self._random.random()
        if draw < 0.3 or not announced:
            self.announce()
        elif draw < 0.55 or not stored:
            self.receive(self._random.choice(announced))
        elif draw < 0.7:
            self.deliver(self._random.choice(stored))
        elif draw < 0.8:
            self.relocate(self._random.choice(stored))
        elif draw < 0.97 or not self.customers:
            self.correct(self._random.choice(stored + announced))
        else:
            self.change_customer(self._random.choice(list(self.customers)))

    def announce(self) -> Parcel:
        """Announce a parcel for one of a handful of customers of this clerk."""
        self._made += 1
        guide_number = f"CAOS-{self.number:02}-{self._made:06}-{uuid.uuid4().hex[:8].upper()}"
        answer = self.api.command(
            "POST",
            "/packages",
            {
                "customer_name": f"Zoë Ibáñez {self.number}",
                "customer_phone": f"+57300{self.number:03}{self._made % 5:04}",
                "guide_number": guide_number,
                "data_consent": True,
            },
        )
        assert answer.status == http.client.CREATED, answer
        parcel = Parcel(answer.body["package_id"], answer.body["tracking_code"], guide_number)
        self.parcels[parcel.package_id] = parcel
        self.told.add((parcel.package_id, 1, "PackageAnnounced"))
        return parcel

    def receive(self, parcel: Parcel) -> Answer:
        """Put it on the shelf."""
        message = {"package_type": "NORMAL", "condition": "GOOD"}
        return self._change(parcel, "POST", "/reception", message, "PackageReceived")

    def deliver(self, parcel: Parcel) -> Answer:
        """Hand it over for nothing."""
        message = {"payment_method": "CASH", "amount": 0, "amount_reason": "caos"}
        return self._change(parcel, "POST", "/delivery", message, "PackageDelivered")

    def relocate(self, parcel: Parcel) -> Answer:
        """Put it elsewhere; somebody may have put another one there."""
        place = f"R{self.number % 10:02}-{self._random.randrange(100):03}"
        return self._change(parcel, "POST", "/relocation", {"position": place}, "PackageRelocated")

    def correct(self, parcel: Parcel) -> Answer:
        """Write something else about it."""
        message = {"observations": f"caos {self._random.random()}"}
        return self._change(parcel, "PATCH", "", message, "PackageCorrected")

    def change_customer(self, customer_id: str) -> Answer:
        """Give a customer another name, which shows on all their parcels."""
        message = {"name": f"Zoë Ñáñez {self._random.randrange(1000)}"}
        answer = self.api.command("PATCH", f"/customers/{customer_id}", message)
        assert answer.status == http.client.OK, answer
        self.customers[customer_id] = answer.body["version"]
        self.told.add((customer_id, answer.body["version"], "CustomerChanged"))
        return answer

    def _change(self, parcel: Parcel, method: str, path: str, message: dict[str, Any], type_: str) -> Answer:
        answer = self.api.command(method, f"/packages/{parcel.package_id}{path}", message)
        if answer.status == http.client.CONFLICT and type_ == "PackageRelocated":
            return answer
        assert answer.status == http.client.OK, answer
        assert answer.body["version"] == parcel.version + 1, "a command took effect twice, or not at all"
        parcel.version, parcel.status = answer.body["version"], answer.body["status"]
        parcel.customer_id = answer.body["customer"]["customer_id"]
        self.customers.setdefault(answer.body["customer"]["customer_id"], 1)
        self.told.add((parcel.package_id, parcel.version, type_))
        return answer
