//! Prints every statement that the service prepares, for a linter or a reader.

#![expect(clippy::print_stdout, reason = "it prints them")]

use booking_service::store::STATEMENTS;

fn main() {
    for statement in STATEMENTS {
        println!("{statement};\n");
    }
}
