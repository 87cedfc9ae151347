#!/usr/bin/env python3
"""The contract from the side of a Python client, whose code is generated from `proto/` at run time.

    python3 -m venv target/clients && . target/clients/bin/activate
    pip install grpcio-tools grpcio-status grpcio-health-checking grpcio-reflection
    python tests/clients/python/check.py ADDRESS          e.g. 127.0.0.1:50051

Every run books resources of its own name and removes what it made. One line a check, then the totals;
exits with 1 if a check failed, and with 2 if it could not begin.
"""

import datetime
import sys
import tempfile
import traceback
import uuid
from pathlib import Path

try:
    import grpc
    import grpc_tools
    from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2
    from google.rpc import error_details_pb2
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2
    from grpc_status import rpc_status
    from grpc_tools import protoc
except ImportError as missing:
    print(f"check.py: {missing}: see its first lines for what to install", file=sys.stderr)
    sys.exit(2)

PROTO = Path(__file__).resolve().parents[3] / "proto"
SERVICE = "booking.v1.BookingService"
CALL_SECONDS_MAX = 15


def generate(out):
    """Generates the client into the directory `out`, and makes it importable."""
    files = sorted(str(path) for path in PROTO.rglob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={out}"]
    status = protoc.main([*arguments, f"--grpc_python_out={out}", *files])
    assert status == 0, f"the protos in {PROTO} do not compile"
    sys.path.insert(0, out)


def at(hour, minute=0):
    """An instant of 3 March 2031."""
    moment = datetime.datetime(2031, 3, 3, hour, minute, tzinfo=datetime.timezone.utc)
    return timestamp_pb2.Timestamp(seconds=int(moment.timestamp()))


def span(interval):
    """An interval as the minutes of its day, to compare and to read."""
    midnight = at(0).seconds
    bounds = (interval.start_time.seconds, interval.end_time.seconds)
    return tuple((second - midnight) // 60 for second in bounds)


def seconds(count):
    """A duration."""
    return duration_pb2.Duration(seconds=count)


def equal(got, wanted, what):
    """Says what differs, where a bare assert would not."""
    assert got == wanted, f"{what} should be {wanted!r}, and is {got!r}"


class Refusal:
    """An error as the client sees it: its code, and each of its details by type."""

    def __init__(self, error):
        self.code = error.code()
        self.trailers = {key: value for key, value in error.trailing_metadata() or ()}
        status = rpc_status.from_call(error)
        assert status is not None, f"{self.code.name} came without details"
        self.types = [detail.TypeName() for detail in status.details]
        self.details = status.details

    def detail(self, kind):
        """The one detail of this type."""
        found = [detail for detail in self.details if detail.Is(kind.DESCRIPTOR)]
        assert len(found) == 1, f"should have one {kind.__name__}, and has {self.types}"
        message = kind()
        found[0].Unpack(message)
        return message


def refused(code, reason, call, request):
    """Makes a call that must fail with this code and this reason."""
    try:
        reply = call(request, timeout=CALL_SECONDS_MAX)
    except grpc.RpcError as error:
        refusal = Refusal(error)
        equal(refusal.code, code, f"the code ({error.details()})")
        info = refusal.detail(error_details_pb2.ErrorInfo)
        equal((info.domain, info.reason), ("booking.v1", reason), "domain and reason")
        equal(len(refusal.types), len(set(refusal.types)), "the number of kinds of detail")
        return refusal
    raise AssertionError(f"should have been refused with {reason}, and returned {reply}")


class Checks:
    """What a client may rely on. Each method is a check; its first line says which."""

    def __init__(self, channel):
        from booking.v1 import booking_pb2, booking_service_pb2, booking_service_pb2_grpc

        self.channel = channel
        self.pb = booking_pb2
        self.rpc = booking_service_pb2
        self.stub = booking_service_pb2_grpc.BookingServiceStub(channel)
        self.run = f"client-{uuid.uuid4()}"
        self.resources = []

    # Helpers

    def resource(self):
        """A resource that nobody else books."""
        self.resources.append(f"{self.run}-{len(self.resources)}")
        return self.resources[-1]

    def creation(self, resource, start, end, **members):
        """A request to create a booking."""
        booking = self.pb.Booking(
            resource=resource, start_time=start, end_time=end, booked_by="check.py"
        )
        return self.rpc.CreateBookingRequest(booking=booking, **members)

    def create(self, resource, start, end, **members):
        """Books."""
        return self.call("CreateBooking", self.creation(resource, start, end, **members))

    def call(self, method, request):
        """Makes a call that must succeed."""
        return getattr(self.stub, method)(request, timeout=CALL_SECONDS_MAX)

    def names(self, resource, **members):
        """The names of the bookings of a resource, over all pages."""
        names, token = [], ""
        while True:
            page = self.call(
                "ListBookings",
                self.rpc.ListBookingsRequest(resource=resource, page_token=token, **members),
            )
            names += [booking.name for booking in page.bookings]
            token = page.next_page_token
            if not token:
                return names

    def clean_up(self):
        """Removes every booking of this run."""
        for resource in self.resources:
            for name in self.names(resource, show_cancelled=True):
                self.call("DeleteBooking", self.rpc.DeleteBookingRequest(name=name))

    # Checks

    def check_health(self):
        """health answers for the process, its readiness and the service"""
        stub = health_pb2_grpc.HealthStub(self.channel)
        for service in ("", "liveness", "readiness", SERVICE):
            request = health_pb2.HealthCheckRequest(service=service)
            reply = stub.Check(request, timeout=CALL_SECONDS_MAX)
            equal(reply.status, health_pb2.HealthCheckResponse.SERVING, f"health of '{service}'")

    def check_reflection(self):
        """reflection v1 and v1alpha list the service, and describe the details of errors"""
        # Both versions have the same messages; the package for Python carries those of v1alpha.
        asked = reflection_pb2.ServerReflectionRequest
        for version in ("v1", "v1alpha"):
            ask = self.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=asked.SerializeToString,
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )
            questions = [
                asked(list_services=""),
                asked(file_containing_symbol="google.rpc.ErrorInfo"),
            ]
            listed, described = ask(iter(questions), timeout=CALL_SECONDS_MAX)
            services = [service.name for service in listed.list_services_response.service]
            assert SERVICE in services, f"{version} lists {services}"
            files = described.file_descriptor_response.file_descriptor_proto
            assert files, f"{version} does not describe google.rpc.ErrorInfo: {described}"

    def check_create(self):
        """a created booking can be read back, equal in every field"""
        resource = self.resource()
        made = self.create(resource, at(9), at(10))
        equal(made.state, self.pb.Booking.CONFIRMED, "the state")
        equal((made.resource, made.booked_by), (resource, "check.py"), "resource and booked_by")
        equal((made.start_time, made.end_time), (at(9), at(10)), "the interval")
        assert made.etag and made.HasField("create_time"), f"lacks output fields: {made}"
        read = self.call("GetBooking", self.rpc.GetBookingRequest(name=made.name))
        equal(read, made, "the booking")

    def check_conflict(self):
        """a taken slot is FAILED_PRECONDITION, and its ErrorInfo names the booking in the way"""
        resource = self.resource()
        made = self.create(resource, at(9), at(10))
        request = self.creation(resource, at(9, 30), at(10, 30))
        refusal = refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "SLOT_UNAVAILABLE",
            self.stub.CreateBooking,
            request,
        )
        wanted = {
            "resource": resource,
            "conflict": made.name,
            "conflict_start_time": "2031-03-03T09:00:00Z",
            "conflict_end_time": "2031-03-03T10:00:00Z",
        }
        metadata = dict(refusal.detail(error_details_pb2.ErrorInfo).metadata)
        equal({key: metadata.get(key) for key in wanted}, wanted, "the metadata")
        refusal.detail(error_details_pb2.PreconditionFailure)

    def check_invalid(self):
        """invalid fields are all named, with their paths in the request"""
        request = self.creation("", at(10), at(9))
        refusal = refused(
            grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS", self.stub.CreateBooking, request
        )
        violations = refusal.detail(error_details_pb2.BadRequest).field_violations
        fields = {violation.field for violation in violations}
        wanted = {"booking.resource", "booking.end_time"}
        assert wanted <= fields, f"should name {sorted(wanted)}, and names {sorted(fields)}"

    def check_update(self):
        """an update changes what its mask names, and an old etag is refused for good"""
        made = self.create(self.resource(), at(9), at(10))
        request = self.rpc.UpdateBookingRequest(
            booking=self.pb.Booking(name=made.name, etag=made.etag, note="by the window"),
            update_mask=field_mask_pb2.FieldMask(paths=["note"]),
        )
        updated = self.call("UpdateBooking", request)
        equal((updated.note, updated.start_time), ("by the window", at(9)), "note and start")
        refusal = refused(
            grpc.StatusCode.ABORTED, "ETAG_MISMATCH", self.stub.UpdateBooking, request
        )
        equal(refusal.trailers.get("grpc-retry-pushback-ms"), "-1", "the pushback")

    def check_paging(self):
        """a walk over all pages returns each booking once, in the order of start_time"""
        resource = self.resource()
        made = [self.create(resource, at(hour), at(hour + 1)).name for hour in range(7)]
        equal(self.names(resource, page_size=3), made, "the names")
        window = self.names(resource, start_time=at(2), end_time=at(4))
        equal(window, made[2:4], "the names of those that overlap the window")
        first = self.call(
            "ListBookings", self.rpc.ListBookingsRequest(resource=resource, page_size=3)
        )
        refused(
            grpc.StatusCode.INVALID_ARGUMENT,
            "PAGE_TOKEN_INVALID",
            self.stub.ListBookings,
            self.rpc.ListBookingsRequest(
                resource=self.resource(), page_token=first.next_page_token
            ),
        )

    def check_hold(self):
        """a hold blocks its slot, and once confirmed it is a booking"""
        resource = self.resource()
        held = self.create(resource, at(9), at(10), hold_ttl=seconds(600))
        equal(held.state, self.pb.Booking.HELD, "the state")
        ttl = held.hold_expire_time.ToDatetime() - held.create_time.ToDatetime()
        equal(ttl, datetime.timedelta(seconds=600), "the time until the hold expires")
        refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "SLOT_UNAVAILABLE",
            self.stub.CreateBooking,
            self.creation(resource, at(9), at(10)),
        )
        request = self.rpc.ConfirmBookingRequest(name=held.name, etag=held.etag)
        confirmed = self.call("ConfirmBooking", request)
        equal(confirmed.state, self.pb.Booking.CONFIRMED, "the state")
        assert not confirmed.HasField("hold_expire_time"), "a confirmed booking expires"

    def check_cancel(self):
        """cancelling frees the slot, keeps the record, and is final"""
        resource = self.resource()
        made = self.create(resource, at(9), at(10))
        request = self.rpc.CancelBookingRequest(name=made.name, reason="rain")
        cancelled = self.call("CancelBooking", request)
        equal(
            (cancelled.state, cancelled.cancel_reason),
            (self.pb.Booking.CANCELLED, "rain"),
            "state and reason",
        )
        equal(self.call("CancelBooking", request), cancelled, "the booking cancelled twice")
        refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "INVALID_STATE",
            self.stub.ConfirmBooking,
            self.rpc.ConfirmBookingRequest(name=made.name),
        )
        again = self.create(resource, at(9), at(10))
        equal(self.names(resource), [again.name], "the names of those that block")
        every = set(self.names(resource, show_cancelled=True))
        equal(every, {made.name, again.name}, "the names of all")

    def check_create_once(self):
        """a repeat with the same request_id returns the same booking; another payload is refused"""
        resource, request_id = self.resource(), str(uuid.uuid4())
        request = self.creation(resource, at(9), at(10), request_id=request_id)
        made = self.call("CreateBooking", request)
        equal(self.call("CreateBooking", request), made, "the booking of the repeat")
        refused(
            grpc.StatusCode.INVALID_ARGUMENT,
            "REQUEST_ID_REUSED",
            self.stub.CreateBooking,
            self.creation(resource, at(11), at(12), request_id=request_id),
        )
        equal(self.names(resource), [made.name], "the names")

    def check_validate_only(self):
        """validate_only answers as the call would, and changes nothing"""
        resource = self.resource()
        self.create(resource, at(9), at(10), validate_only=True)
        equal(self.names(resource), [], "the names")
        self.create(resource, at(9), at(10))
        refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "SLOT_UNAVAILABLE",
            self.stub.CreateBooking,
            self.creation(resource, at(9), at(10), validate_only=True),
        )

    def check_batch(self):
        """a batch is created as a whole or not at all, and the error names the member at fault"""
        resource = self.resource()
        members = [self.creation(resource, at(hour), at(hour + 1)) for hour in (9, 10, 11)]
        request = self.rpc.BatchCreateBookingsRequest(requests=members)
        made = self.call("BatchCreateBookings", request).bookings
        equal([booking.start_time for booking in made], [at(9), at(10), at(11)], "the starts")
        names = [booking.name for booking in reversed(made)]
        read = self.call("BatchGetBookings", self.rpc.BatchGetBookingsRequest(names=names))
        equal([booking.name for booking in read.bookings], names, "the names, in request order")
        rest = [self.creation(resource, at(8), at(9)), self.creation(resource, at(11), at(12))]
        refusal = refused(
            grpc.StatusCode.FAILED_PRECONDITION,
            "SLOT_UNAVAILABLE",
            self.stub.BatchCreateBookings,
            self.rpc.BatchCreateBookingsRequest(requests=rest),
        )
        metadata = refusal.detail(error_details_pb2.ErrorInfo).metadata
        equal(metadata["index"], "1", "the index of the member at fault")
        equal(len(self.names(resource)), 3, "the number of bookings")

    def check_availability(self):
        """availability merges what is busy, and lists the slots that fit"""
        resource = self.resource()
        for start, end in ((at(9), at(10)), (at(10), at(11)), (at(12), at(13))):
            self.create(resource, start, end)
        request = self.rpc.QueryAvailabilityRequest(
            resources=[resource], start_time=at(8), end_time=at(14), duration=seconds(3600)
        )
        (answer,) = self.call("QueryAvailability", request).resources
        equal(answer.resource, resource, "the resource")
        equal([span(busy) for busy in answer.busy], [(540, 660), (720, 780)], "busy")
        free = [(480, 540), (660, 720), (780, 840)]
        equal([span(gap) for gap in answer.free], free, "free")
        equal([span(slot) for slot in answer.slots], free, "slots")

    def check_delete(self):
        """a deleted booking is NOT_FOUND, with a ResourceInfo"""
        made = self.create(self.resource(), at(9), at(10))
        self.call("DeleteBooking", self.rpc.DeleteBookingRequest(name=made.name))
        refusal = refused(
            grpc.StatusCode.NOT_FOUND,
            "BOOKING_NOT_FOUND",
            self.stub.GetBooking,
            self.rpc.GetBookingRequest(name=made.name),
        )
        info = refusal.detail(error_details_pb2.ResourceInfo)
        equal(info.resource_name, made.name, "the resource_name")


def attempt(check):
    """Runs one check and tells how it went."""
    try:
        check()
    except AssertionError as failure:
        print(f"not ok - {check.__doc__}\n#   {failure}")
    except grpc.RpcError as error:
        print(f"not ok - {check.__doc__}\n#   {error.code().name}: {error.details()}")
    except Exception:  # whatever it is, the other checks are worth running
        trace = traceback.format_exc().replace("\n", "\n#   ").rstrip("# ")
        print(f"not ok - {check.__doc__}\n#   {trace}")
    else:
        print(f"ok - {check.__doc__}")
        return True
    return False


def main():
    """Runs every check against the address of the command line."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print("usage: check.py ADDRESS", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as out, grpc.insecure_channel(sys.argv[1]) as channel:
        generate(out)
        try:
            grpc.channel_ready_future(channel).result(timeout=CALL_SECONDS_MAX)
        except grpc.FutureTimeoutError:
            print(f"check.py: nothing answers at {sys.argv[1]}", file=sys.stderr)
            return 2
        checks = Checks(channel)
        names = [name for name in vars(Checks) if name.startswith("check_")]
        try:
            outcomes = [attempt(getattr(checks, name)) for name in names]
        finally:
            checks.clean_up()
    print(f"{outcomes.count(True)} passed, {outcomes.count(False)} failed")
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
