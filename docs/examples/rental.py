"""The life of a rental over the API of fleetgate: a booking system with a generated client and webhooks.

It needs Python 3.9 or newer, and two rentable devices without turnaround and gate. docs/rentals.md shows how to prepare
`fleetgate demo`, and how to make the client in the folder `fleetgate_client` beside this file. The environment has the
address of the gateway in FLEETGATE, and a token with the scope `rentals` in TOKEN.
"""

import hashlib
import hmac
import json
import os
import queue
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from fleetgate_client import AuthenticatedClient
from fleetgate_client.api.rentals import (
    change_rental,
    create_booking,
    create_customer,
    create_person,
    create_renter,
    create_subscription,
    end_rental,
    erase_customer,
    list_rental_events,
    remove_subscription,
    rental_report,
    show_availability,
    show_rental,
)
from fleetgate_client.models import (
    CustomerContact,
    NewBooking,
    NewBookingItem,
    NewCustomer,
    NewPerson,
    NewRenter,
    NewSubscription,
    ProblemDocument,
    RentalChange,
    RentalEnd,
    RentalEndGiven,
)

DEVICE, SPARE = "cam-07", "cam-08"
# Seconds from the booking to the begin of the rental, and from there to its end.
AHEAD, LENGTH = 10, 60
# How long to wait for an event. One that was not accepted at first comes again after 10 seconds.
PATIENCE = 60
# An older signature may be that of a recorded call, which is sent again.
MAX_AGE = 300


class Refused(Exception):
    """An answer of the API that is an error: `code` is stable, and `detail` is for people."""

    def __init__(self, problem):
        super().__init__(f"{problem.code}: {problem.detail}")
        self.code = problem.code


def answer(response):
    """Returns what the API answers. Answers of another status than 2xx are problem documents."""
    if isinstance(response.parsed, ProblemDocument):
        raise Refused(response.parsed)
    return response.parsed


def is_signed(header, body, secret):
    """Checks `t=SECONDS,v1=HEX`: HEX is the HMAC-SHA256 of `SECONDS.BODY` with the secret as the key."""
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    seconds = parts.get("t", "")
    if not seconds.isdigit() or abs(time.time() - int(seconds)) > MAX_AGE:
        return False
    expected = hmac.new(secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, parts.get("v1", ""))


class Receiver(ThreadingHTTPServer):
    """Receives the events of a subscription. Each call comes at least once, and is answered before the work is done."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/events"
        self.secret = None
        self.events = queue.Queue()
        self.seen = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait_for(self, rental, kind):
        """Returns the next event of this kind. Those of one rental come in their order."""
        end = time.monotonic() + PATIENCE
        while True:
            event = self.events.get(timeout=max(end - time.monotonic(), 0.001))
            if event["rental"] != rental or event["id"] in self.seen:
                continue
            self.seen.add(event["id"])
            print(f"  event {event['kind']}: {event['data']['state']}")
            if event["kind"] == kind:
                return event


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        secret = self.server.secret
        is_ours = secret and is_signed(self.headers.get("X-Fleetgate-Signature", ""), body, secret)
        if is_ours:
            self.server.events.put(json.loads(body))
        self.send_response(204 if is_ours else 403)
        self.end_headers()

    def log_message(self, format, *args):
        """The program prints the events instead."""


def in_seconds(seconds):
    """Returns a time from now on. Times of the API have an offset."""
    at = datetime.now(timezone.utc) + timedelta(seconds=seconds)
    return at.isoformat(timespec="seconds")


def wg(*args, text=None):
    return subprocess.run(["wg", *args], input=text, capture_output=True, text=True, check=True).stdout.strip()


def add_customer(client, run):
    """Adds a customer with one person, who has a laptop with a key of its own."""
    new = NewCustomer(
        external_ref=f"crm-{run}", name="Ada Ltd", contacts=[CustomerContact(name="Ada", email="ada@example.org")]
    )
    customer = answer(create_customer.sync_detailed(client=client, body=new, idempotency_key=f"customer-{run}"))
    new = NewPerson(customer=customer.id, name="Ada Lovelace", email="ada@example.org")
    person = answer(create_person.sync_detailed(client=client, body=new, idempotency_key=f"person-{run}"))
    private_key = wg("genkey")
    new = NewRenter(person=person.id, name="laptop", public_key=wg("pubkey", text=private_key))
    made = answer(create_renter.sync_detailed(client=client, body=new, idempotency_key=f"renter-{run}"))
    print(f"{customer.id} has the renter {made.renter.id}, which reaches {', '.join(made.renter.allowed_ips)}")
    return customer


def book(client, run, customer):
    """Books a device. A call whose answer was lost is sent again with the same key, and books once."""
    begin, end = in_seconds(AHEAD), in_seconds(AHEAD + LENGTH)
    free = answer(show_availability.sync_detailed(client=client, from_=begin, to=end))
    print(f"{free.free} of {free.devices} devices are free from {begin} until {end}")
    item = NewBookingItem(device=DEVICE, from_=begin, until=end, name="entrance")
    new = NewBooking(customer=customer.id, external_ref=f"order-{run}", time_zone="Europe/Vienna", items=[item])
    key = f"order-{run}"
    booking = answer(create_booking.sync_detailed(client=client, body=new, idempotency_key=key))
    again = answer(create_booking.sync_detailed(client=client, body=new, idempotency_key=key))
    assert again.id == booking.id, "a repetition books nothing"
    rental = booking.rentals[0]
    print(f"{rental.id}: {rental.device_name} at {' and '.join(rental.addresses)}")
    return rental


def extend(client, rental):
    """Sets another end of the version that was read. The same call with the former version changes nothing."""
    etag = show_rental.sync_detailed(rental.id, client=client).headers["ETag"]
    change = RentalChange(until=in_seconds(2 * LENGTH))
    changed = answer(change_rental.sync_detailed(rental.id, client=client, body=change, if_match=etag))
    print(f"extended until {changed.until}")
    try:
        answer(change_rental.sync_detailed(rental.id, client=client, body=change, if_match=etag))
        raise AssertionError("the version was another one")
    except Refused as refused:
        assert refused.code == "changed_meanwhile", refused


def swap(client, rental):
    """Gives the customer another device. Name and addresses stay."""
    swapped = answer(change_rental.sync_detailed(rental.id, client=client, body=RentalChange(device=SPARE)))
    assert swapped.addresses == rental.addresses
    print(f"{swapped.device_name} takes the place of {rental.device_name}")


def main():
    run = str(int(time.time()))
    client = AuthenticatedClient(base_url=os.environ["FLEETGATE"], token=os.environ["TOKEN"])
    receiver = Receiver()
    new = NewSubscription(url=receiver.url)
    subscription = answer(create_subscription.sync_detailed(client=client, body=new, idempotency_key=f"events-{run}"))
    receiver.secret = subscription.secret

    customer = add_customer(client, run)
    rental = book(client, run, customer)
    receiver.wait_for(rental.id, "rental.booked")
    receiver.wait_for(rental.id, "rental.active")
    extend(client, rental)
    swap(client, rental)
    receiver.wait_for(rental.id, "rental.swapped")
    end = RentalEnd(reason=RentalEndGiven.RETURNED_EARLY, note="it rained")
    answer(end_rental.sync_detailed(rental.id, client=client, body=end, idempotency_key=f"end-{run}"))
    receiver.wait_for(rental.id, "rental.closed")

    report = answer(rental_report.sync_detailed(rental.id, client=client))
    changes = ", ".join(str(change.change) for change in report.changes)
    print(f"used from {report.used.from_} until {report.used.until}; {changes}")
    feed = answer(list_rental_events.sync_detailed(client=client, rental=rental.id))
    assert {event.id for event in feed.items} == receiver.seen, "the feed has the same events"

    answer(remove_subscription.sync_detailed(subscription.id, client=client))
    answer(erase_customer.sync_detailed(customer.id, client=client))
    print("done")


if __name__ == "__main__":
    main()
