//! ListBookings and QueryAvailability.

use std::collections::HashSet;

use crate::booking::limits::{
    AVAILABILITY_DAYS_MAX, AVAILABILITY_RESOURCES_MAX, PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX,
};
use crate::booking::{Booker, Interval, InvalidInterval, Resource, SlotSearch};
use crate::pb;
use crate::store::Listing;

use super::super::page_token;
use super::super::status::Error;
use super::super::violations::Violations;
use super::{instant, interval, length};

/// ListBookings.
pub(in super::super) fn listing(request: pb::ListBookingsRequest) -> Result<Listing, Error> {
    let mut violations = Violations::default();
    let page_size = violations.check("page_size", page_size(request.page_size));
    let resource = (!request.resource.is_empty()).then_some(request.resource);
    let booked_by = (!request.booked_by.is_empty()).then_some(request.booked_by);
    let listing = Listing {
        resource: resource.and_then(|text| violations.check("resource", Resource::parse(text))),
        booked_by: booked_by.and_then(|text| violations.check("booked_by", Booker::parse(text))),
        start_time: instant(&mut violations, "start_time", request.start_time),
        end_time: instant(&mut violations, "end_time", request.end_time),
        show_cancelled: request.show_cancelled,
        page_size: page_size.unwrap_or(PAGE_SIZE_DEFAULT),
        after: None,
    };
    if let (Some(start), Some(end)) = (listing.start_time, listing.end_time)
        && start >= end
    {
        violations.add("end_time", InvalidInterval::Empty);
    }
    let mut listing = violations.finish(Some(listing))?;
    if !request.page_token.is_empty() {
        let after = page_token::decode(&request.page_token, &listing);
        listing.after = Some(after.ok_or(Error::PageToken)?);
    }
    Ok(listing)
}

fn page_size(asked: i32) -> Result<usize, &'static str> {
    match usize::try_from(asked) {
        Err(_) => Err("must not be negative"),
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(asked) => Ok(asked.min(PAGE_SIZE_MAX)),
    }
}

/// What to find out about which resources.
#[derive(Debug)]
pub(in super::super) struct Availability {
    pub(in super::super) resources: Vec<Resource>,
    pub(in super::super) window: Interval,
    pub(in super::super) search: Option<SlotSearch>,
}

/// QueryAvailability.
pub(in super::super) fn availability(
    request: pb::QueryAvailabilityRequest,
) -> Result<Availability, Violations> {
    let mut violations = Violations::default();
    let resources = resources(&mut violations, request.resources);
    let window = window(&mut violations, request.start_time, request.end_time);
    let search = search(&mut violations, request.duration, request.step);
    violations.finish(window.map(|window| Availability {
        resources,
        window,
        search,
    }))
}

fn resources(violations: &mut Violations, texts: Vec<String>) -> Vec<Resource> {
    if !(1..=AVAILABILITY_RESOURCES_MAX).contains(&texts.len()) {
        violations.add(
            "resources",
            format_args!("must have 1 to {AVAILABILITY_RESOURCES_MAX} members"),
        );
        return Vec::new();
    }
    let mut seen = HashSet::new();
    let mut resources = Vec::with_capacity(texts.len());
    for (index, text) in texts.into_iter().enumerate() {
        let field = format!("resources[{index}]");
        let Some(resource) = violations.check(&field, Resource::parse(text)) else {
            continue;
        };
        if !seen.insert(resource.clone()) {
            violations.add(&field, "stands there twice");
        }
        resources.push(resource);
    }
    resources
}

fn window(
    violations: &mut Violations,
    start: Option<prost_types::Timestamp>,
    end: Option<prost_types::Timestamp>,
) -> Option<Interval> {
    const MICROS_MAX: i64 = AVAILABILITY_DAYS_MAX * 86_400 * 1_000_000;
    let window = interval(violations, "", start, end)?;
    if window.end().micros() - window.start().micros() > MICROS_MAX {
        violations.add(
            "end_time",
            format_args!("must be at most {AVAILABILITY_DAYS_MAX} days after start_time"),
        );
    }
    Some(window)
}

fn search(
    violations: &mut Violations,
    duration: Option<prost_types::Duration>,
    step: Option<prost_types::Duration>,
) -> Option<SlotSearch> {
    let (had_duration, had_step) = (duration.is_some(), step.is_some());
    if had_step && !had_duration {
        violations.add("step", "must come with a duration");
    }
    let duration = duration.and_then(|it| violations.check("duration", positive_micros(it)));
    let step = step.and_then(|it| violations.check("step", positive_micros(it)));
    let length = duration?;
    SlotSearch::new(length, step.unwrap_or(length))
}

fn positive_micros(duration: prost_types::Duration) -> Result<i64, &'static str> {
    length(duration)
        .and_then(|length| i64::try_from(length.as_micros()).ok())
        .filter(|micros| *micros > 0)
        .ok_or("must be at least a microsecond")
}
