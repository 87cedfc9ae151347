-- What the usual way has: a table, and an index to look for an overlap with.
CREATE TABLE usual_bookings (
    id uuid PRIMARY KEY,
    resource text NOT NULL,
    start_time timestamptz NOT NULL,
    end_time timestamptz NOT NULL,
    booked_by text NOT NULL,
    note text NOT NULL,
    create_time timestamptz NOT NULL,
    update_time timestamptz NOT NULL
);
CREATE INDEX usual_bookings_slot ON usual_bookings (resource, start_time);
