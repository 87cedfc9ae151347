//! The texts of a booking: who, what, why, each with its own rule.

use std::fmt;

use super::limits::{CANCEL_REASON_BYTES_MAX, NAME_BYTES_MAX, NOTE_BYTES_MAX};

/// Why a text is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// Nothing, where something is required.
    #[error("is required")]
    Empty,
    /// More bytes than allowed.
    #[error("must be at most {max} bytes of UTF-8")]
    TooLong {
        /// The most bytes allowed.
        max: usize,
    },
    /// A control character.
    #[error("must not contain control characters")]
    Control,
    /// White space at the beginning or at the end.
    #[error("must not begin or end with white space")]
    Padded,
}

/// The rule of `resource` and `booked_by`.
fn parse_name(text: String) -> Result<String, InvalidText> {
    if text.is_empty() {
        Err(InvalidText::Empty)
    } else if text.len() > NAME_BYTES_MAX {
        Err(InvalidText::TooLong {
            max: NAME_BYTES_MAX,
        })
    } else if text.chars().any(char::is_control) {
        Err(InvalidText::Control)
    } else if text.trim().len() != text.len() {
        Err(InvalidText::Padded)
    } else {
        Ok(text)
    }
}

/// The rule of free text: line breaks and tabs are fine, other control characters are not.
fn parse_prose(text: String, max: usize) -> Result<String, InvalidText> {
    let forbidden = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if text.len() > max {
        Err(InvalidText::TooLong { max })
    } else if text.chars().any(forbidden) {
        Err(InvalidText::Control)
    } else {
        Ok(text)
    }
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks the text against the rule of its kind.
            ///
            /// # Errors
            /// [`InvalidText`] says which part of the rule it breaks.
            pub fn parse(text: impl Into<String>) -> Result<Self, InvalidText> {
                $parse(text.into()).map(Self)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type! {
    /// What is booked: 1 to 255 bytes, no control characters, no white space at either end.
    Resource, parse_name
}

text_type! {
    /// Who booked, by the same rule as [`Resource`].
    Booker, parse_name
}

text_type! {
    /// A note: at most 1,024 bytes, no control characters but line breaks and tabs.
    Note, |text| parse_prose(text, NOTE_BYTES_MAX)
}

text_type! {
    /// Why a booking was cancelled: at most 255 bytes, by the rule of [`Note`].
    CancelReason, |text| parse_prose(text, CANCEL_REASON_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    quickcheck! {
        fn an_accepted_name_is_kept_as_it_is(text: String) -> bool {
            Resource::parse(text.clone()).map_or(true, |kept| kept.as_str() == text)
        }

        fn white_space_is_refused_at_either_end(text: String) -> bool {
            Booker::parse(format!(" {text}")).is_err() && Booker::parse(format!("{text} ")).is_err()
        }
    }

    #[test]
    fn a_name_has_a_length_in_bytes() {
        assert_eq!(Resource::parse(""), Err(InvalidText::Empty));
        assert!(Resource::parse("é".repeat(127)).is_ok());
        let too_long = Resource::parse("é".repeat(128));
        assert_eq!(too_long, Err(InvalidText::TooLong { max: 255 }));
    }

    #[test]
    fn a_name_has_no_control_characters_and_no_padding() {
        assert_eq!(Resource::parse("room\n1"), Err(InvalidText::Control));
        assert_eq!(Resource::parse("room\u{0}"), Err(InvalidText::Control));
        assert_eq!(Resource::parse("\u{a0}room"), Err(InvalidText::Padded));
        assert_eq!(Resource::parse("   "), Err(InvalidText::Padded));
        assert!(Resource::parse("room 101").is_ok());
    }

    #[test]
    fn a_note_may_have_line_breaks_and_tabs_only() {
        assert!(Note::parse("first\r\n\tsecond").is_ok());
        assert!(Note::parse("").is_ok());
        assert_eq!(Note::parse("a\u{0}b"), Err(InvalidText::Control));
        assert_eq!(Note::parse("a\u{7f}b"), Err(InvalidText::Control));
        assert!(Note::parse("x".repeat(1_024)).is_ok());
        assert!(Note::parse("x".repeat(1_025)).is_err());
    }
}
