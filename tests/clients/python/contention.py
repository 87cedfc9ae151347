#!/usr/bin/env python3
"""Crowds that want overlapping slots of one resource at once: nobody is double-booked, and nobody is refused
without a booking in the way.

    python tests/clients/python/contention.py ADDRESS [ADDRESS...]

More than one address: replicas on one database, with the rivals spread over them. See check.py for what to
install. A round passes if the bookings that the service then has are those that were accepted, no two of them
overlap, and each refusal overlaps one. Exits with 1 if a round failed, and with 2 if it could not begin.

ROUNDS   how many (default: 10)
RIVALS   how many at once (default: 64)
"""

import collections
import concurrent.futures
import os
import random
import sys
import tempfile
import time
import uuid

from check import CALL_SECONDS_MAX, at, generate, grpc

ROUNDS = int(os.environ.get("ROUNDS", "10"))
RIVALS = int(os.environ.get("RIVALS", "64"))
SLOT_SECONDS = 3600
APART_SECONDS = 180  # so each slot overlaps the next nineteen
CONTENTION_RETRIES_MAX = 5


def overlap(one, other):
    """Whether two half-open intervals have an instant in common."""
    return one[0] < other[1] and other[0] < one[1]


def overlaps(taken):
    """How many neighbours overlap: of all intervals, if any two do."""
    taken = sorted(taken)
    return sum(overlap(one, other) for one, other in zip(taken, taken[1:]))


class Crowd:
    """Rivals for the slots of one resource, on the stubs of all replicas in turn."""

    def __init__(self, stubs):
        from booking.v1 import booking_pb2, booking_service_pb2

        self.pb, self.rpc, self.stubs = booking_pb2, booking_service_pb2, stubs
        self.resource = f"contention-{uuid.uuid4()}"
        self.codes = collections.Counter()

    def attempt(self, number):
        """One rival: its slot, and whether it got it. Says ABORTED: tries again, as the contract allows."""
        start = at(0).seconds + number * APART_SECONDS
        slot = (start, start + SLOT_SECONDS)
        booking = self.pb.Booking(resource=self.resource, booked_by="contention.py")
        booking.start_time.seconds, booking.end_time.seconds = slot
        request = self.rpc.CreateBookingRequest(booking=booking, request_id=str(uuid.uuid4()))
        for retry in range(CONTENTION_RETRIES_MAX + 1):
            try:
                self.stubs[number % len(self.stubs)].CreateBooking(request, timeout=CALL_SECONDS_MAX)
                self.codes["OK"] += 1
                return slot, True
            except grpc.RpcError as error:
                self.codes[error.code().name] += 1
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION:
                    return slot, False
                if error.code() != grpc.StatusCode.ABORTED or retry == CONTENTION_RETRIES_MAX:
                    raise
                time.sleep(random.uniform(0, 0.05 * 2**retry))
        raise AssertionError("the loop above returns")

    def bookings(self):
        """What the service says that it has; there are fewer than a page holds."""
        request = self.rpc.ListBookingsRequest(resource=self.resource, page_size=1000)
        return self.stubs[0].ListBookings(request, timeout=CALL_SECONDS_MAX).bookings

    def fight(self):
        """One round. Returns what is wrong with its outcome: nothing, it is to be hoped."""
        with concurrent.futures.ThreadPoolExecutor(RIVALS) as threads:
            outcomes = list(threads.map(self.attempt, random.sample(range(RIVALS), RIVALS)))
        accepted = [slot for slot, won in outcomes if won]
        refused = [slot for slot, won in outcomes if not won]
        bookings = self.bookings()
        stored = [(booking.start_time.seconds, booking.end_time.seconds) for booking in bookings]
        wrong = []
        if overlaps(stored):
            wrong.append(f"{overlaps(stored)} bookings overlap the one before them")
        if sorted(stored) != sorted(accepted):
            wrong.append(f"{len(accepted)} were accepted, and {len(stored)} are there")
        unexplained = [slot for slot in refused if not any(overlap(slot, got) for got in accepted)]
        if unexplained or not accepted:
            wrong.append(f"{len(unexplained)} were refused a slot that nobody has")
        for booking in bookings:
            delete = self.rpc.DeleteBookingRequest(name=booking.name)
            self.stubs[0].DeleteBooking(delete, timeout=CALL_SECONDS_MAX)
        return wrong


def main(addresses):
    """Fights all rounds, a line each; returns the exit code."""
    if not addresses:
        print("usage: contention.py ADDRESS [ADDRESS...]", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as out:
        generate(out)
        from booking.v1 import booking_service_pb2_grpc

        stubs = []
        for address in addresses:
            channel = grpc.insecure_channel(address)
            grpc.channel_ready_future(channel).result(timeout=CALL_SECONDS_MAX)
            stubs.append(booking_service_pb2_grpc.BookingServiceStub(channel))
        failed = 0
        for number in range(1, ROUNDS + 1):
            started = time.monotonic()
            crowd = Crowd(stubs)
            wrong = crowd.fight()
            failed += bool(wrong)
            spent = (time.monotonic() - started) * 1000
            verdict = "not ok" if wrong else "ok"
            print(f"{verdict} {number} - {dict(crowd.codes)} in {spent:.0f} ms", *wrong, sep="\n#   ")
    print(f"{ROUNDS - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
