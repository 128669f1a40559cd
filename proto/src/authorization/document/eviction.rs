//! The spec of an `Eviction`.

use std::time::{Duration, SystemTime};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::super::{Eviction, EvictionSubject, SourceRef};
use crate::document::{
    Node, RefusalClass,
    fields::{Fields, Path},
};

/// `None` only with an error.
pub(super) fn read(spec: &Node, source: SourceRef, fields: &mut Fields<'_>) -> Option<Eviction> {
    let path = Path::root("spec");
    fields.map(spec, &path, &["spiffeId", "serial", "until"]);
    let subject = match (spec.entry("spiffeId"), spec.entry("serial")) {
        (Some(id), None) => fields
            .parsed(
                &id.value,
                &path.key("spiffeId"),
                RefusalClass::BadPrincipal,
                "write it as spiffe://<trust domain>/ns/<namespace>/sa/<service account>",
            )
            .map(EvictionSubject::Id),
        (None, Some(serial)) => fields
            .parsed(
                &serial.value,
                &path.key("serial"),
                RefusalClass::BadSerial,
                "copy it from the access log or `mesh-lite identity`, in quotes",
            )
            .map(EvictionSubject::Serial),
        (None, None) => {
            let remedy = "state spiffeId or serial";
            let problem = "spec does not say whom to evict";
            fields.error(RefusalClass::MissingField, spec.at, problem, remedy);
            None
        }
        (Some(_), Some(serial)) => {
            let remedy = "state spiffeId or serial, and only one of them";
            let problem = "spec does not say whom to evict: it says two things";
            fields.error(RefusalClass::Contradiction, serial.at, problem, remedy);
            None
        }
    };
    let until = spec.entry("until").and_then(|entry| {
        let text = fields.text(&entry.value, &path.key("until"))?;
        let until = seconds_of(text);
        if until.is_none() {
            let problem = format!("spec.until {text:?} is no time");
            let remedy = "write it as 2030-12-31T23:59:59Z";
            fields.error(RefusalClass::BadTime, entry.value.at, problem, remedy);
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
