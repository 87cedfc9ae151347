//! When a resource is taken and free within a window, and which slots of a given length fit.

use super::interval::Interval;
use super::limits::AVAILABILITY_SLOTS_MAX;
use super::time::Timestamp;

/// Which slots to look for: of one length, starting at the window's start plus multiples of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSearch {
    length_micros: i64,
    step_micros: i64,
}

impl SlotSearch {
    /// Slots of this length, a step apart; `None` unless both are at least a microsecond.
    #[must_use]
    pub fn new(length_micros: i64, step_micros: i64) -> Option<Self> {
        (length_micros > 0 && step_micros > 0).then_some(Self {
            length_micros,
            step_micros,
        })
    }
}

/// The state of one resource within one window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Availability {
    /// When it is taken, cut to the window, in order; bookings that touch are merged.
    pub busy: Vec<Interval>,
    /// The time between. `busy` and `free` together tile the window.
    pub free: Vec<Interval>,
    /// The slots that fit, in order, at most [`AVAILABILITY_SLOTS_MAX`].
    pub slots: Vec<Interval>,
}

impl Availability {
    /// Works it out from the blocking bookings of the resource that overlap the window.
    ///
    /// They come in order of their start, and are disjoint, as blocking bookings always are.
    pub fn new(
        window: Interval,
        bookings: impl IntoIterator<Item = Interval>,
        search: Option<SlotSearch>,
    ) -> Self {
        let busy = merge(window, bookings);
        let free = gaps(window, &busy);
        let slots = search.map_or_else(Vec::new, |search| slots(window, &free, search));
        Self { busy, free, slots }
    }
}

/// Cuts the bookings to the window, and merges those that touch.
fn merge(window: Interval, bookings: impl IntoIterator<Item = Interval>) -> Vec<Interval> {
    let mut busy: Vec<Interval> = Vec::new();
    for booking in bookings {
        let start = booking.start().max(window.start());
        let end = booking.end().min(window.end());
        let touched = busy.last_mut().filter(|last| last.end() >= start);
        match touched {
            Some(last) => *last = part(last.start(), end.max(last.end())).unwrap_or(*last),
            None => busy.extend(part(start, end)),
        }
    }
    busy
}

/// What of the window the busy intervals leave.
fn gaps(window: Interval, busy: &[Interval]) -> Vec<Interval> {
    let starts = std::iter::once(window.start()).chain(busy.iter().map(Interval::end));
    let ends = busy
        .iter()
        .map(Interval::start)
        .chain(std::iter::once(window.end()));
    starts
        .zip(ends)
        .filter_map(|(start, end)| part(start, end))
        .collect()
}

/// The slots that lie in one free interval each, aligned to the window's start.
fn slots(window: Interval, free: &[Interval], search: SlotSearch) -> Vec<Interval> {
    let origin = window.start().micros();
    let aligned = |gap: &Interval| {
        let (offset, end) = (gap.start().micros() - origin, gap.end());
        let first = offset / search.step_micros + i64::from(offset % search.step_micros != 0);
        (first..).map_while(move |n| {
            let start = n.checked_mul(search.step_micros)?.checked_add(origin)?;
            let slot_end = start.checked_add(search.length_micros)?;
            part(at(start)?, at(slot_end)?).filter(|slot| slot.end() <= end)
        })
    };
    free.iter()
        .flat_map(aligned)
        .take(AVAILABILITY_SLOTS_MAX)
        .collect()
}

fn at(micros: i64) -> Option<Timestamp> {
    Timestamp::from_micros(micros).ok()
}

/// A part of a window: `None` if there is nothing in it.
fn part(start: Timestamp, end: Timestamp) -> Option<Interval> {
    Interval::new(start, end).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quickcheck::quickcheck;

    /// A window, and disjoint bookings in order made out of gaps and lengths, some touching.
    fn scene(offset: u8, steps: &[(u8, u8)]) -> (Interval, Vec<Interval>) {
        let mut at = i64::from(offset) - 128;
        let mut bookings = Vec::new();
        for &(gap, length) in steps {
            let start = at + i64::from(gap % 4);
            at = start + 1 + i64::from(length % 7);
            bookings.push(interval(start, at));
        }
        let window = interval(0, 100);
        bookings.retain(|booking| booking.overlaps(&window));
        (window, bookings)
    }

    fn interval(start: i64, end: i64) -> Interval {
        let at = |micros| Timestamp::from_micros(micros).expect("in range");
        Interval::new(at(start), at(end)).expect("valid")
    }

    quickcheck! {
        fn busy_and_free_tile_the_window(offset: u8, steps: Vec<(u8, u8)>) -> bool {
            let (window, bookings) = scene(offset, &steps);
            let Availability { busy, free, .. } = Availability::new(window, bookings, None);
            let mut parts: Vec<_> = busy.iter().chain(&free).collect();
            parts.sort_by_key(|part| part.start());
            let whole = parts.first().map(|first| first.start()) == Some(window.start())
                && parts.last().map(|last| last.end()) == Some(window.end());
            // Neighbours meet exactly, and never two of a kind: busy ones that touch are merged.
            whole
                && parts.windows(2).all(|pair| pair[0].end() == pair[1].start())
                && busy.windows(2).all(|pair| pair[0].end() < pair[1].start())
        }

        fn slots_are_exactly_the_aligned_ones_that_fit(
            offset: u8, steps: Vec<(u8, u8)>, length: u8, step: u8
        ) -> bool {
            let (window, bookings) = scene(offset, &steps);
            let (length, step) = (1 + i64::from(length % 12), 1 + i64::from(step % 9));
            let found = Availability::new(window, bookings.clone(), SlotSearch::new(length, step));
            let expected: Vec<_> = (0..100 / step + 1)
                .map(|n| n * step)
                .filter(|start| start + length <= 100)
                .map(|start| interval(start, start + length))
                .filter(|slot| !bookings.iter().any(|booking| booking.overlaps(slot)))
                .collect();
            found.slots == expected
        }
    }

    #[test]
    fn slots_are_bounded() {
        let found = Availability::new(interval(0, 1_000_000), [], SlotSearch::new(1, 1));
        assert_eq!(found.slots.len(), AVAILABILITY_SLOTS_MAX);
        let huge = Availability::new(interval(0, 10), [], SlotSearch::new(i64::MAX, i64::MAX));
        assert!(huge.slots.is_empty());
        let late = Availability::new(
            interval(0, 10),
            [interval(0, 5)],
            SlotSearch::new(1, i64::MAX),
        );
        assert!(late.slots.is_empty());
    }
}
