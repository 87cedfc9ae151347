//! What is wrong with a request: all of it, each field once, in the words of `BadRequest`.

use std::fmt::Display;

use tonic_types::FieldViolation;

/// Most bytes of violations, paths and texts together, that one answer carries.
///
/// They travel in a trailer, in base64, and gRPC clients refuse trailers of more than 8 KiB. A single
/// request stays far below; a batch with that much wrong is told how many violations were left off.
const BYTES_MAX: usize = 4_096;

/// The violations found so far.
#[derive(Debug, Default)]
pub(super) struct Violations {
    prefix: String,
    found: Vec<FieldViolation>,
}

impl Violations {
    /// A single violation.
    pub(super) fn of(field: &str, description: impl Display) -> Self {
        let mut violations = Self::default();
        violations.add(field, description);
        violations
    }

    /// From here on, paths are those of fields of member `index` of `requests`.
    pub(super) fn enter_request(&mut self, index: usize) {
        self.prefix = format!("requests[{index}].");
    }

    /// From here on, paths are those of fields of the request itself again.
    pub(super) fn leave_request(&mut self) {
        self.prefix.clear();
    }

    /// Notes a violation, unless the field has one already.
    pub(super) fn add(&mut self, field: &str, description: impl Display) {
        let field = format!("{}{field}", self.prefix);
        if self.found.iter().all(|violation| violation.field != field) {
            let violation = FieldViolation::new(field, description.to_string());
            self.found.push(violation);
        }
    }

    /// The value, or a violation of this field.
    pub(super) fn check<T, E: Display>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error)).ok()
    }

    /// The value, or a violation that says that it is missing.
    pub(super) fn require<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.add(field, "is required");
        }
        value
    }

    /// The value, unless there was anything wrong with the request.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Self> {
        value.filter(|_| self.found.is_empty()).ok_or(self)
    }

    /// What an answer can carry, and how many had to be left off.
    pub(super) fn into_answer(mut self) -> (Vec<FieldViolation>, usize) {
        let mut bytes = 0;
        let fits = self.found.iter().take_while(|violation| {
            bytes += violation.field.len() + violation.description.len();
            bytes <= BYTES_MAX
        });
        let kept = fits.count();
        let left_off = self.found.len() - kept;
        self.found.truncate(kept);
        (self.found, left_off)
    }

    /// The paths, for tests.
    #[cfg(test)]
    pub(super) fn fields(&self) -> Vec<&str> {
        let fields = self.found.iter();
        fields.map(|violation| violation.field.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_named_once() {
        let mut violations = Violations::of("booking.note", "is too long");
        violations.add("booking.note", "is too blue");
        violations.enter_request(3);
        violations.add("booking.note", "is too long");
        violations.leave_request();
        violations.add("requests", "are too many");
        let fields = violations.fields();
        assert_eq!(
            fields,
            ["booking.note", "requests[3].booking.note", "requests"]
        );
    }

    #[test]
    fn an_answer_stays_below_what_clients_accept() {
        let mut violations = Violations::default();
        for index in 0..100 {
            violations.enter_request(index);
            violations.add("booking.resource", "x".repeat(100));
        }
        let (kept, left_off) = violations.into_answer();
        assert_eq!(kept.len() + left_off, 100);
        assert!((30..100).contains(&kept.len()), "{}", kept.len());
    }
}
