#!/usr/bin/env bash
# The contract in fifteen checks, against a running service, as a person with grpcurl would make them.
#
#     tests/smoke.sh ADDRESS          e.g. tests/smoke.sh 127.0.0.1:50051
#
# Every run books resources of its own name and removes what it made, so it can be repeated against
# the same database. The result is one `ok` or `not ok` line a check, then the totals; it exits with
# 1 if a check failed, and with 2 if it could not begin.
#
# GRPCURL        the grpcurl to use (default: the one in PATH)
# GRPCURL_FLAGS  how to connect (default: -plaintext), e.g. '-cacert ca.pem'
set -uo pipefail

readonly RIVALS=20 # creates that go for one slot at once
readonly CALL_SECONDS_MAX=15

# grpcurl exits with 64 and the gRPC code on top.
readonly INVALID_ARGUMENT=67 NOT_FOUND=69 FAILED_PRECONDITION=73 ABORTED=74

readonly SERVICE=booking.v1.BookingService
readonly HEALTH=grpc.health.v1.Health/Check

stop() {
  echo "smoke.sh: $*" >&2
  exit 2
}

[[ $# -eq 1 ]] || stop 'usage: tests/smoke.sh ADDRESS'
readonly ADDRESS=$1
readonly GRPCURL=${GRPCURL:-grpcurl}
command -v "$GRPCURL" >/dev/null ||
  stop "no '$GRPCURL': install grpcurl, or name it: GRPCURL=/path/to/grpcurl tests/smoke.sh ADDRESS"
read -ra flags <<<"${GRPCURL_FLAGS:--plaintext}"

uuid() {
  if [[ -r /proc/sys/kernel/random/uuid ]]; then
    cat /proc/sys/kernel/random/uuid
  else
    uuidgen | tr '[:upper:]' '[:lower:]'
  fi
}

run=smoke-$(uuid) || stop 'cannot make a UUID: no /proc and no uuidgen'
readonly run
scratch=$(mktemp -d) || stop 'cannot make a temporary directory'
readonly scratch

# --- Calls -------------------------------------------------------------------------------------------

# call METHOD JSON [KEY]: the reply is left in the file KEY.out, the error in KEY.err, the exit code in
# KEY.code (KEY: last).
call() {
  local at=$scratch/${3:-last}
  "$GRPCURL" "${flags[@]}" -max-time "$CALL_SECONDS_MAX" -d "$2" "$ADDRESS" "$1" \
    >"$at.out" 2>"$at.err"
  echo $? >"$at.code"
}

booking() { call "$SERVICE/$1" "$2" "${3:-last}"; }

# The values that a field has in the last reply, as they stand between the quotes of the JSON: they can
# be put into a request as they are.
fields() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$scratch/last.out"; }
field() { fields "$1" | head -n 1; }

# slot RESOURCE START END: the members of a booking of 3 March 2031, given as HH:MM.
slot() {
  printf '"resource":"%s","startTime":"2031-03-03T%s:00Z","endTime":"2031-03-03T%s:00Z"' "$@"
}

# create RESOURCE START END [more members of the request] [KEY]
create() {
  booking CreateBooking "{\"booking\":{$(slot "$1" "$2" "$3"),\"bookedBy\":\"smoke\"}${4:-}}" "${5:-last}"
}

# update BOOKING PATH: the booking's members, and the fields to change, as `a,b`. grpcurl takes
# a field mask as an object or, in other versions, as the string that the JSON mapping prescribes.
update() {
  local between='","'
  local object="{\"paths\":[\"${2//,/$between}\"]}"
  booking UpdateBooking "{\"booking\":{$1},\"updateMask\":$object}"
  if grep -q 'error getting request data' "$scratch/last.err"; then
    booking UpdateBooking "{\"booking\":{$1},\"updateMask\":\"${2//_t/T}\"}"
  fi
}

# --- Expectations ------------------------------------------------------------------------------------

complain() {
  echo "# $1"
  sed 's/^/#   /' "$scratch/last.out" "$scratch/last.err"
  return 1
}

succeeds() { [[ $(<"$scratch/last.code") == 0 ]] || complain 'the call should have succeeded'; }

# fails CODE REASON: with that gRPC code, and that reason in its details.
fails() {
  [[ $(<"$scratch/last.code") == "$1" ]] ||
    complain "the call should have failed with gRPC code $(($1 - 64)), $2" || return
  error_has "\"$2\""
}

error_has() { grep -qF -- "$1" "$scratch/last.err" || complain "the error lacks $1"; }
reply_has() { grep -qF -- "$1" "$scratch/last.out" || complain "the reply lacks $1"; }

field_is() {
  [[ $(field "$1") == "$2" ]] || complain "$1 should be '$2', and is '$(field "$1")'"
}

# counts RESOURCE N: the resource has N bookings.
counts() {
  booking ListBookings "{\"resource\":\"$1\",\"pageSize\":1000}"
  succeeds || return
  local found
  found=$(fields name | wc -l)
  ((found == $2)) || complain "the resource should have $2 bookings, and has $found"
}

# --- The checks --------------------------------------------------------------------------------------

readonly room=$run-room rivals=$run-rivals once=$run-once
name='' # of the booking that the checks work with
etag='' # its etag when it was created

health_of_the_process() {
  call "$HEALTH" '{}'
  succeeds && field_is status SERVING
}

health_of_the_service() {
  call "$HEALTH" "{\"service\":\"$SERVICE\"}"
  succeeds && field_is status SERVING
}

reflection() {
  "$GRPCURL" "${flags[@]}" -max-time "$CALL_SECONDS_MAX" "$ADDRESS" list \
    >"$scratch/last.out" 2>"$scratch/last.err"
  echo $? >"$scratch/last.code"
  succeeds && reply_has "$SERVICE" && reply_has grpc.health.v1.Health
}

create_books() {
  create "$room" 09:00 10:00
  succeeds || return
  name=$(field name) etag=$(field etag)
  [[ $name =~ ^bookings/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$ ]] ||
    complain "a name should be bookings/ and a UUID, and is '$name'" || return
  [[ -n $etag ]] || complain 'a booking should have an etag' || return
  field_is resource "$room" && field_is state CONFIRMED && field_is startTime 2031-03-03T09:00:00Z
}

get_returns() {
  booking GetBooking "{\"name\":\"$name\"}"
  succeeds && field_is name "$name" && field_is resource "$room" && field_is etag "$etag" &&
    field_is endTime 2031-03-03T10:00:00Z
}

list_finds() { counts "$room" 1 && reply_has "\"$name\""; }

update_reschedules() {
  update "\"name\":\"$name\",$(slot "$room-not-masked" 09:30 10:30)" start_time,end_time
  succeeds && field_is name "$name" && field_is resource "$room" &&
    field_is startTime 2031-03-03T09:30:00Z && field_is endTime 2031-03-03T10:30:00Z || return
  [[ $(field etag) != "$etag" ]] || complain 'an update should change the etag'
}

overlap_is_refused() {
  create "$room" 10:00 11:00
  fails "$FAILED_PRECONDITION" SLOT_UNAVAILABLE && error_has "\"$name\"" && counts "$room" 1
}

back_to_back_is_accepted() {
  create "$room" 10:30 11:30
  succeeds || return
  create "$room" 08:30 09:30
  succeeds && counts "$room" 3
}

# The slots overlap and none equals another: what a unique key on the slot lets through.
one_rival_wins() {
  local rival at won=0 refused=0 pids=()
  for ((rival = 0; rival < RIVALS; rival++)); do
    printf -v at '%02d' "$((rival * 2))"
    create "$rivals" "09:$at" "10:$at" '' "rival-$rival" &
    pids+=($!)
  done
  wait "${pids[@]}"
  for ((rival = 0; rival < RIVALS; rival++)); do
    case $(<"$scratch/rival-$rival.code") in
      0) ((won += 1)) ;;
      "$FAILED_PRECONDITION") ((refused += 1)) ;;
      *)
        cp "$scratch/rival-$rival.err" "$scratch/last.err"
        complain "rival $rival failed in another way" || return
        ;;
    esac
  done
  ((won == 1 && refused == RIVALS - 1)) || complain "$won rivals won, $refused were refused" || return
  counts "$rivals" 1
}

request_id_creates_once() {
  local id first
  id=$(uuid)
  create "$once" 09:00 10:00 ",\"requestId\":\"$id\""
  succeeds || return
  first=$(field name)
  create "$once" 09:00 10:00 ",\"requestId\":\"$id\""
  succeeds && field_is name "$first" && counts "$once" 1
}

invalid_fields_are_all_named() {
  booking CreateBooking "{\"booking\":{$(slot '' 10:00 09:00),\"bookedBy\":\"smoke\"}}"
  fails "$INVALID_ARGUMENT" INVALID_FIELDS && error_has '"booking.resource"' &&
    error_has '"booking.end_time"'
}

unknown_name_is_not_found() {
  booking GetBooking "{\"name\":\"bookings/$(uuid)\"}"
  fails "$NOT_FOUND" BOOKING_NOT_FOUND
}

old_etag_is_refused() {
  update "\"name\":\"$name\",\"note\":\"late\",\"etag\":\"$etag\"" note
  fails "$ABORTED" ETAG_MISMATCH || return
  booking GetBooking "{\"name\":\"$name\"}"
  succeeds && field_is note ''
}

delete_removes() {
  booking DeleteBooking "{\"name\":\"$name\"}"
  succeeds || return
  booking GetBooking "{\"name\":\"$name\"}"
  fails "$NOT_FOUND" BOOKING_NOT_FOUND
}

# --- The run -----------------------------------------------------------------------------------------

passed=0 failed=0

check() {
  : >"$scratch/last.out"
  : >"$scratch/last.err"
  if "$1"; then
    ((passed += 1))
    echo "ok $((passed + failed)) - $2"
  else
    ((failed += 1))
    echo "not ok $((passed + failed)) - $2"
  fi
}

# Removes every booking of this run, whichever check made it.
# shellcheck disable=SC2329 # the trap calls it
clean_up() {
  local resource made
  for resource in "$room" "$rivals" "$once"; do
    booking ListBookings "{\"resource\":\"$resource\",\"pageSize\":1000,\"showCancelled\":true}"
    while read -r made; do
      booking DeleteBooking "{\"name\":\"$made\"}" deleted
    done < <(fields name)
  done
  rm -rf "$scratch"
}

call "$HEALTH" '{}'
if grep -q 'Failed to dial' "$scratch/last.err"; then
  rm -rf "$scratch"
  stop "nothing answers at $ADDRESS"
fi
trap clean_up EXIT

echo "1..15"
check health_of_the_process 'health: the process is SERVING'
check health_of_the_service 'health: the service is SERVING, so its database answers'
check reflection 'reflection lists the service'
check create_books 'a created booking is CONFIRMED and has a name and an etag'
check get_returns 'get returns the booking as it was created'
check list_finds 'list by resource finds it'
check update_reschedules 'update with a mask reschedules it and leaves the rest'
check overlap_is_refused 'an overlap is refused with SLOT_UNAVAILABLE, naming the booking in the way'
check back_to_back_is_accepted 'back-to-back bookings are accepted, before and after'
check one_rival_wins "of $RIVALS creates at once for overlapping slots exactly one wins"
check request_id_creates_once 'the same request_id twice returns the same booking'
check invalid_fields_are_all_named 'invalid fields are all named, not only the first'
check unknown_name_is_not_found 'an unknown name is BOOKING_NOT_FOUND'
check old_etag_is_refused 'an etag out of date is refused with ETAG_MISMATCH and changes nothing'
check delete_removes 'a deleted booking is gone'

echo "$passed passed, $failed failed"
((failed == 0))
