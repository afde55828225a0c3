"""What a step at the counter does: a scan is recognised and answered, a customer found, a hand-over paid."""

import re
import uuid
from typing import Any

from fastapi import Request

from db.package_document import Status
from infra.errors import Conflict, Invalid, PreconditionFailed, Problem
from infra.fields import phone_number
from queries import get_customer, get_package, list_customers, list_packages, lookup_packages
from queries.list_customers import CustomerPage
from queries.list_packages import PackageFilters
from web.pages.counter import refusals
from web.pages.counter.codes import COMMANDS, METHODS
from web.pages.counter.commands import Writer
from web.pages.counter.work import MOST_CODES, Answer, Work, bare
from web.reading import read
from web.rendering import translator

SUGGESTED = 8

PRESENT: tuple[Status, ...] = ("RECEIVED", "ANNOUNCED")
"""What isn't over."""

GUIDE = re.compile(r"(?=.*[0-9])[A-Za-z0-9-]{5,50}")
"""What may be a guide; without a digit it is somebody's name."""


MARK = re.compile(r"^\][A-Za-z][0-9]")
"""What some scanners put before a code to tell its kind."""


def as_id(text: str) -> uuid.UUID | None:
    """Read an id; None if it isn't one."""
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def as_phone(text: str) -> str | None:
    """Read a phone number; None if it isn't one."""
    try:
        return phone_number(text)
    except ValueError:
        return None


class Counter:
    """One step: `work` is changed on the way, and the answer given."""

    def __init__(self, request: Request, work: Work) -> None:
        self.request, self.work = request, work
        self.writer = Writer(request, work)
        self.now = request.app.state.clock()
        self._ = translator(request)

    async def step(self) -> Answer:
        """Do what the page asks for, or the code that was scanned."""
        self.work.q = MARK.sub("", self.work.q)
        command = COMMANDS.get(self.work.q.upper()) if self.work.action == "scan" else None
        if command is not None:
            self.work.action, self.work.q = command.action, command.q
        steps = {
            "scan": self.scan,
            "choose": self.choose,
            "add": self.add,
            "add-all": self.add_all,
            "remove": self.remove,
            "resume": self.resume,
            "cancel": self.cancel,
            "pin": self.pin,
            "unpin": self.unpin,
            "pin-or-not": self.unpin if self.work.pinned_name else self.pin,
            "receive": self.confirm_reception,
            "method": self.choose_method,
            "sort-out": self.sort_out,
            "deliver": self.deliver,
        }
        answer = await steps.get(self.work.action, self.show)()
        self.work.take_next()
        return answer

    async def show(self) -> Answer:
        """Show what is on the counter, as after the page was opened again."""
        return Answer(kind="none", sound="none")

    async def scan(self) -> Answer:
        """Recognise what was scanned or typed; nothing at all confirms what is at hand."""
        text = self.work.q
        if not text:
            return await self.confirm()
        if self.work.guide and not GUIDE.fullmatch(text.replace(" ", "")):
            return await self.name_customer(text)
        if self.work.guide and (phone := as_phone(text)):
            return await self.customer_by_phone(phone)
        return await self.recognise(text)

    async def confirm(self) -> Answer:
        """Receive the guide whose customer is known, else hand over what is ready for it."""
        if self.work.guide and self.work.customer_name:
            return await self.receive(self.work.guide, self.work.customer_name, self.work.customer_phone)
        if self.work.guide:
            return Answer(kind="ask", sound="bad", text=self._("Whose is it? Type a phone or a name."))
        if self.work.package_id:
            return await self.deliver()
        return await self.show()

    async def confirm_reception(self) -> Answer:
        """Receive what is at hand, and never hand anything over."""
        if self.work.guide:
            return await self.confirm()
        return Answer(kind="note", sound="bad", text=self._("There is nothing to receive."))

    async def choose_method(self) -> Answer:
        """Note how the customer pays."""
        if self.work.q in METHODS:
            self.work.method = self.work.q
        return Answer(kind="none")

    async def recognise(self, text: str) -> Answer:
        """Find what this code names, and do what comes next for it."""
        found = (await read(self.request, lookup_packages.fetch(text, self.now)))["items"]
        if earlier := await self.writer.earlier():  # asked after the look-up, which may show what was lost
            return self.was_received(earlier)
        # While a guide is at hand, a code that isn't one parcel's alone is one more of its label.
        vague = {"phone", "other_code"} if self.work.guide else {"phone"}
        named = [item for item in found if item["matched_by"] not in vague and self.is_here(item)]
        present = next((item for item in named if item["status"] in PRESENT), None)
        if present is not None:
            return await self.go_on_with(present)
        if named and named[0]["status"] == "DELIVERED":
            return Answer(kind="over", sound="bad", package=named[0], text=self._("It was handed over already."))
        if phone := as_phone(text):
            return self.parcels_of_phone(phone, found)
        if GUIDE.fullmatch(text.replace(" ", "")):
            return await self.new_guide(text.replace(" ", "").upper())
        return await self.customers(text)

    def is_here(self, found: dict[str, Any]) -> bool:
        """Tell whether what was found is meant: shelves of several sites have places of the same name."""
        return found["matched_by"] != "position" or self.work.site in (None, found["site"])

    async def go_on_with(self, package: dict[str, Any]) -> Answer:
        """Hand over what is in storage, receive what is announced."""
        if package["status"] == "RECEIVED":
            return self.put_into_hand_over(package)
        whose = package["recipient_name"], package["customer"]["phone"]
        return await self.receive(package["guide_number"], *whose, carrier=package["carrier"])

    async def new_guide(self, guide: str) -> Answer:
        """Take a guide that nobody has announced: receive it for the pinned customer, or ask whose it is.

        While one is at hand it is taken for another barcode of the same label.
        """
        if self.work.pinned_name:
            return await self.receive(guide, self.work.pinned_name, self.work.pinned_phone)
        if self.work.take_up(guide):
            return Answer(kind="ask", sound="ask", text=self._("Whose is it?"))
        if self.work.guide:
            return self.add_code(guide)
        if self.work.package_id:
            self.work.pending.append(guide)
            text = self._("New guide: it waits below until this hand-over is done.")
            return Answer(kind="ask", sound="bad", text=text)
        self.work.guide = guide
        return Answer(kind="ask", sound="ask", text=self._("New guide. Whose is it?"))

    def add_code(self, code: str) -> Answer:
        """Note another barcode of the label at hand."""
        if bare(code) in map(bare, (self.work.guide or "", *self.work.other_code)):
            return Answer(kind="note", sound="good", text=self._("This code is noted already."))
        if len(self.work.other_code) == MOST_CODES:
            return Answer(kind="note", sound="bad", text=self._("A parcel has up to 10 other codes."))
        self.work.other_code.append(code)
        return Answer(
            kind="ask", sound="good", text=self._("%(code)s is another code of this parcel.") % {"code": code}
        )

    async def sort_out(self) -> Answer:
        """Put a barcode where it belongs: the last one noted is another parcel, or the guide is the last parcel's."""
        if self.work.other_code:
            code = self.work.other_code.pop()
            self.work.set_aside()
            self.work.guide = code
            return Answer(kind="ask", sound="ask", text=self._("New guide. Whose is it?"))
        if self.work.guide and self.work.last:
            return await self.add_to_last(self.work.guide, self.work.last)
        return Answer(kind="note", sound="bad", text=self._("There is no code to sort out."))

    async def add_to_last(self, code: str, package_id: uuid.UUID) -> Answer:
        """Give the parcel that was received before one more code."""
        package = await read(self.request, get_package.fetch(package_id, self.now))
        try:
            if bare(code) not in map(bare, package["other_codes"]):  # or this is asked again, its answer lost
                await self.writer.add_codes(package, [code])
        except (Invalid, Conflict, PreconditionFailed) as problem:
            return Answer(kind="refused", sound="bad", text=f"{code}: {refusals.sentence(problem, self._)}")
        self.work.forget_guide()
        text = self._("%(code)s is another code of %(guide)s.") % {"code": code, "guide": package["guide_number"]}
        return Answer(kind="note", sound="good", text=text)

    async def receive(self, guide: str, name: str | None, phone: str | None, carrier: str | None = None) -> Answer:
        """Receive a parcel; what is refused stays on the counter."""
        try:
            codes = self.work.other_code if bare(self.work.guide or "") == bare(guide) else []
            package = await self.writer.receive(guide, name, phone, codes, carrier)
        except Problem as problem:
            return self.was_refused(guide, problem)
        return self.was_received(package)

    def was_received(self, package: dict[str, Any]) -> Answer:
        """Be done with the guide, wherever it waited, and show its position."""
        guide = package["guide_number"]
        self.work.drop_pending(guide)
        if bare(self.work.guide or "") == bare(guide):
            self.work.forget_guide()
        self.work.last, self.work.last_guide = uuid.UUID(package["package_id"]), guide
        return Answer(kind="received", package=package)

    def was_refused(self, guide: str, problem: Problem) -> Answer:
        """Say why; a parcel that somebody else received meanwhile can be handed over."""
        package = problem.members.get("package")
        is_own = package is not None and bare(package["guide_number"]) == bare(guide)
        if isinstance(problem, Invalid) and "guide_number" in problem.members["errors"]:
            self.work.forget_guide()
        elif self.work.guide == guide and "customer_phone" in problem.members.get("errors", {}):
            self.work.customer_phone = None
        elif package is None or not is_own or package["status"] == "ANNOUNCED":
            self.work.guide = self.work.guide or guide
        text = f"{guide}: {refusals.sentence(problem, self._)}"
        return Answer(kind="refused", sound="bad", text=text, package=package)

    def put_into_hand_over(self, package: dict[str, Any]) -> Answer:
        """Add a parcel in storage to what is handed over together."""
        self.work.set_aside()
        package_id = uuid.UUID(package["package_id"])
        if package_id in self.work.package_id:
            return Answer(kind="note", sound="good", text=self._("It is in this hand-over already."))
        self.work.package_id.append(package_id)
        return Answer(kind="none")

    def parcels_of_phone(self, phone: str, found: list[dict[str, Any]]) -> Answer:
        """Show a customer's parcels that are not over."""
        present = [item for item in found if item["status"] in PRESENT]
        if not present:
            return Answer(kind="note", sound="bad", text=self._("Nothing is here for %(phone)s.") % {"phone": phone})
        return Answer(kind="parcels", sound="ask", packages=present)

    async def customers(self, text: str) -> Answer:
        """Look a name up; of a single match the parcels are shown at once."""
        found = await self.find_customers(text)
        if len(found) == 1:
            return await self.parcels_of(uuid.UUID(found[0]["customer_id"]))
        if not found:
            return Answer(kind="note", sound="bad", text=self._("Nothing is found for “%(text)s”.") % {"text": text})
        return self.several(found)

    def several(self, found: list[dict[str, Any]]) -> Answer:
        """Let one of several customers be chosen."""
        text = self._("Several match: type the number beside one, more of the name, or the phone.")
        return Answer(kind="customers", sound="ask", customers=found, text=text)

    async def find_customers(self, text: str) -> list[dict[str, Any]]:
        """Give the first customers that the words find."""
        key: str = self.request.app.state.signing_key
        try:
            page = CustomerPage(q=text[:100], limit=SUGGESTED)
        except ValueError:
            return []
        found: list[dict[str, Any]] = (await read(self.request, list_customers.fetch(page, self.now, key)))["items"]
        return found

    async def parcels_of(self, customer_id: uuid.UUID) -> Answer:
        """Show what a customer has in storage or announced."""
        key: str = self.request.app.state.signing_key
        filters = PackageFilters(customer_id=customer_id, status=list(PRESENT))
        found = (await read(self.request, list_packages.fetch(filters, self.now, key)))["items"]
        if not found:
            return Answer(kind="note", sound="bad", text=self._("This customer has nothing here."))
        return Answer(kind="parcels", sound="ask", packages=found)

    async def customer_by_phone(self, phone: str) -> Answer:
        """Take the customer who has this phone; a new one has the name that was typed before it, or is asked for it."""
        found = [one for one in await self.find_customers(phone.removeprefix("+57")) if one["phone"] == phone]
        named = self.work.customer_name if self.work.customer_phone is None else None
        self.work.customer_phone = phone
        self.work.customer_name = found[0]["name"] if found else named
        if self.work.customer_name:
            return Answer(kind="ask", sound="good", text=self._("Enter receives it."))
        return Answer(kind="ask", sound="ask", text=self._("A new customer: type their name."))

    async def name_customer(self, text: str) -> Answer:
        """Take the name of a new customer, or look for one that is known."""
        if self.work.customer_phone and not self.work.customer_name:
            self.work.customer_name = text
            return Answer(kind="ask", sound="good", text=self._("Enter receives it."))
        if phone := as_phone(text):
            return await self.customer_by_phone(phone)
        found = await self.find_customers(text)
        if len(found) == 1:
            return self.chosen(found[0]["name"], found[0]["phone"])
        if found:
            return self.several(found)
        self.work.customer_name = text
        return Answer(
            kind="ask", sound="ask", text=self._("Nobody is called that yet: type their phone, if it is known.")
        )

    async def choose(self) -> Answer:
        """Take the customer who was picked: for the guide that waits, or to see their parcels."""
        customer_id = as_id(self.work.q)
        if customer_id is None:
            return await self.show()
        if self.work.guide is None:
            return await self.parcels_of(customer_id)
        picked = await read(self.request, get_customer.fetch(customer_id, self.now))
        return self.chosen(picked["name"], picked["phone"])

    def chosen(self, name: str, phone: str | None) -> Answer:
        """Set the customer of the guide that waits."""
        self.work.customer_name, self.work.customer_phone = name, phone
        return Answer(kind="ask", sound="good", text=self._("Enter receives it."))

    async def add(self) -> Answer:
        """Add one of the parcels shown to the hand-over."""
        package_id = as_id(self.work.q)
        if package_id is None:
            return await self.show()
        package = await read(self.request, get_package.fetch(package_id, self.now))
        if package["status"] != "RECEIVED":
            why = refusals.STATUSES[package["status"]]
            return Answer(kind="over", sound="bad", package=package, text=self._(why))
        answer = self.put_into_hand_over(package)
        others = await self.parcels_of(uuid.UUID(package["customer"]["customer_id"]))
        return answer if answer.text else others.model_copy(update={"sound": "good"})

    async def add_all(self) -> Answer:
        """Add all that a customer has in storage to the hand-over."""
        customer_id = as_id(self.work.q)
        shown = await (self.show() if customer_id is None else self.parcels_of(customer_id))
        for package in shown.packages:
            if package["status"] == "RECEIVED":
                self.put_into_hand_over(package)
        return Answer(kind="none")

    async def remove(self) -> Answer:
        """Take one parcel out of the hand-over."""
        kept = [pair for pair in zip(self.work.package_id, self.work.due, strict=False) if str(pair[0]) != self.work.q]
        self.work.package_id, self.work.due = [id_ for id_, _ in kept], [due for _, due in kept]
        return Answer(kind="none", sound="none")

    async def resume(self) -> Answer:
        """Take up a guide that waits."""
        self.work.take_up(self.work.q)
        return Answer(kind="ask", sound="ask", text=self._("Whose is it?"))

    async def cancel(self) -> Answer:
        """Step back: the customer, then the guide, then the hand-over; what waits is kept."""
        if self.work.customer_name or self.work.customer_phone:
            self.work.customer_name = self.work.customer_phone = None
        elif self.work.guide:
            self.work.forget_guide()
        else:
            self.work.forget_hand_over()
        return Answer(kind="none", sound="none")

    async def pin(self) -> Answer:
        """Keep a customer for every new guide from now on."""
        self.work.pinned_name, self.work.pinned_phone = self.work.customer_name, self.work.customer_phone
        if self.work.guide and self.work.pinned_name:
            return await self.receive(self.work.guide, self.work.pinned_name, self.work.pinned_phone)
        return Answer(kind="none", sound="good")

    async def unpin(self) -> Answer:
        """Ask again whose each new guide is."""
        self.work.pinned_name = self.work.pinned_phone = None
        return Answer(kind="none", sound="good")

    async def deliver(self) -> Answer:
        """Hand over what lies ready, each parcel its own delivery; one that is refused is named and stays."""
        if not self.work.package_id:
            return Answer(kind="note", sound="bad", text=self._("There is nothing to hand over."))
        total = sum(self.work.due)
        charged = total if self.work.charged is None else self.work.charged
        if charged != total and not self.work.amount_reason:
            return Answer(kind="refused", sound="bad", text=self._("Another amount needs its reason."))
        given = self.work.received if self.work.method == "CASH" else None
        if given is not None and given < charged:
            return Answer(kind="refused", sound="bad", text=self._("The cash given is less than the total."))
        handed, refused, stays = [], [], []
        for package_id, due, amount in self._amounts(charged):
            try:
                reason = self.work.amount_reason if amount != due else None
                handed.append(await self.writer.deliver(package_id, amount, reason))
            except Problem as problem:
                package = problem.members.get("package") or {"guide_number": str(package_id), "package_id": ""}
                refused.append((package, refusals.sentence(problem, self._)))
                if package.get("status") == "RECEIVED":
                    stays.append(package_id)
        paid = sum(package["paid"] for package in handed)
        change = given - paid if given is not None and handed else None
        self.work.forget_hand_over()
        self.work.package_id = stays
        sound = "bad" if refused else "good"
        return Answer(kind="delivered", sound=sound, packages=handed, refused=refused, paid=paid, change=change)

    def _amounts(self, charged: int) -> list[tuple[uuid.UUID, int, int]]:
        """Spread what is charged over the parcels: each what is due for it, as far as it goes, the rest on the last."""
        amounts = []
        rest = charged
        pairs = list(zip(self.work.package_id, self.work.due, strict=True))
        for number, (package_id, due) in enumerate(pairs, 1):
            amount = rest if number == len(pairs) else min(due, rest)
            rest -= amount
            amounts.append((package_id, due, amount))
        return amounts
