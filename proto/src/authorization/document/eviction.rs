//! The spec of an `Eviction`.

use std::time::{Duration, SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    super::{Eviction, EvictionSubject, SourceRef},
    fields::{Fields, Path},
};
use crate::document::Node;

/// `None` only with an error.
pub(super) fn read(spec: &Node, source: SourceRef, fields: &mut Fields<'_>) -> Option<Eviction> {
    let path = Path::root("spec");
    fields.map(spec, &path, &["spiffeId", "serial", "until"]);
    let subject = match (spec.entry("spiffeId"), spec.entry("serial")) {
        (Some(id), None) => fields
            .parsed(&id.value, &path.key("spiffeId"))
            .map(EvictionSubject::Id),
        (None, Some(serial)) => fields
            .parsed(&serial.value, &path.key("serial"))
            .map(EvictionSubject::Serial),
        (None, None) | (Some(_), Some(_)) => {
            let remedy = "state spiffeId or serial, and only one of them";
            fields.error(spec.at, "spec does not say whom to evict", remedy);
            None
        }
    };
    let until = spec.entry("until").and_then(|entry| {
        let text = fields.text(&entry.value, &path.key("until"))?;
        let until = seconds_of(text);
        if until.is_none() {
            let problem = format!("spec.until {text:?} is no time");
            fields.error(entry.value.at, problem, "write it as 2030-12-31T23:59:59Z");
        }
        until
    });
    Some(Eviction {
        source,
        subject: subject?,
        until,
    })
}

/// Whole seconds, as the wire has them; a part of one counts as one.
fn seconds_of(text: &str) -> Option<SystemTime> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let seconds = u64::try_from(time.unix_timestamp()).ok()?;
    let seconds = seconds.checked_add(u64::from(time.nanosecond() > 0))?;
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .filter(|_| seconds > 0)
}
