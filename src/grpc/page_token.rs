//! Page tokens: a place in a listing, bound to the listing's other arguments.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::booking::{BookingId, Timestamp};
use crate::store::{Cursor, Listing};

/// The first byte of a token: tells the layout below from any other there may ever be.
const VERSION: u8 = 1;

/// An arbitrary constant, so that the hashes are those of tokens and of nothing else.
const NAMESPACE: Uuid = Uuid::from_u128(0x1f6d_3a52_8c40_4e1b_b0a7_5e2d_94c3_7718);

const START: std::ops::Range<usize> = 1..9;
const ID: std::ops::Range<usize> = 9..25;
const HASH: std::ops::Range<usize> = 25..41;

/// The token of a place in a listing: opaque and URL-safe.
pub(super) fn encode(cursor: Cursor, listing: &Listing) -> String {
    let mut token = [VERSION; HASH.end];
    token[START].copy_from_slice(&cursor.start_time.micros().to_be_bytes());
    token[ID].copy_from_slice(cursor.id.as_uuid().as_bytes());
    let hash = hash(&token[..HASH.start], listing);
    token[HASH].copy_from_slice(&hash);
    URL_SAFE_NO_PAD.encode(token)
}

/// The place that a token stands for; `None` if it was not made here, for this very listing.
pub(super) fn decode(token: &str, listing: &Listing) -> Option<Cursor> {
    let token: [u8; HASH.end] = URL_SAFE_NO_PAD.decode(token).ok()?.try_into().ok()?;
    if token[0] != VERSION || token[HASH] != hash(&token[..HASH.start], listing) {
        return None;
    }
    let micros = i64::from_be_bytes(token[START].try_into().ok()?);
    Some(Cursor {
        start_time: Timestamp::from_micros(micros).ok()?,
        id: BookingId::from(Uuid::from_slice(&token[ID]).ok()?),
    })
}

/// A hash of the place and of everything that makes the listing but the size of its pages.
///
/// Each text goes in with its length or the lack of it, so no two listings share their bytes. It
/// keeps a client from a mistake, not from a forgery: a made-up place shows nobody more.
fn hash(place: &[u8], listing: &Listing) -> [u8; 16] {
    let mut bytes = place.to_vec();
    let resource = listing.resource.as_ref().map(|resource| resource.as_str());
    let booked_by = listing.booked_by.as_ref().map(|booker| booker.as_str());
    for text in [resource, booked_by] {
        bytes.extend(
            text.map_or(u64::MAX, |text| text.len() as u64)
                .to_be_bytes(),
        );
        bytes.extend(text.unwrap_or_default().as_bytes());
    }
    for time in [listing.start_time, listing.end_time] {
        bytes.extend(time.map_or(i64::MIN, Timestamp::micros).to_be_bytes());
    }
    bytes.push(u8::from(listing.show_cancelled));
    Uuid::new_v5(&NAMESPACE, &bytes).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::booking::{Booker, Resource};
    use quickcheck::{TestResult, quickcheck};

    fn cursor(micros: i32, id: u128) -> Cursor {
        Cursor {
            start_time: Timestamp::from_micros(micros.into()).expect("in range"),
            id: Uuid::from_u128(id).into(),
        }
    }

    /// One listing for each pattern of bits, all different.
    fn listing(bits: u8, page_size: usize) -> Listing {
        let given = |bit: u8| bits & (1 << bit) != 0;
        let name = if given(1) { "a" } else { "aa" };
        let time = |micros| Timestamp::from_micros(micros).expect("in range");
        Listing {
            resource: given(0).then(|| Resource::parse(name).expect("valid")),
            booked_by: (!given(0)).then(|| Booker::parse(name).expect("valid")),
            start_time: given(2).then(|| time(0)),
            end_time: given(3).then(|| time(if given(4) { 1 } else { 2 })),
            show_cancelled: given(5),
            page_size,
            after: None,
        }
    }

    quickcheck! {
        fn a_token_reads_back_whatever_the_page_size(
            micros: i32, id: u128, bits: u8, sizes: (usize, usize)
        ) -> bool {
            let cursor = cursor(micros, id);
            let token = encode(cursor, &listing(bits, sizes.0));
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            token.chars().all(plain) && decode(&token, &listing(bits, sizes.1)) == Some(cursor)
        }

        fn a_token_is_for_the_arguments_it_was_made_for(id: u128, a: u8, b: u8) -> TestResult {
            let (made_for, used_for) = (listing(a, 1), listing(b, 1));
            if made_for == used_for {
                return TestResult::discard();
            }
            let token = encode(cursor(0, id), &made_for);
            TestResult::from_bool(decode(&token, &used_for).is_none())
        }

        fn a_changed_token_is_none(id: u128, at: usize, change: u8) -> TestResult {
            let listing = listing(0, 1);
            let mut bytes = URL_SAFE_NO_PAD
                .decode(encode(cursor(0, id), &listing))
                .expect("base64");
            let at = at % bytes.len();
            bytes[at] ^= change;
            let unchanged = decode(&URL_SAFE_NO_PAD.encode(bytes), &listing).is_some();
            TestResult::from_bool(unchanged == (change == 0))
        }

        fn garbage_is_none(text: String) -> bool {
            decode(&text, &listing(0, 1)).is_none()
        }
    }
}
