//! A report of a sidecar's certificate, in words. Pure: what is said depends on the report alone.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use mesh_lite_control_plane::clock::readable;
use mesh_lite_proxy::{
    clock::{ClockSkew, in_words},
    identity::report::{
        AuthorityReport, CertificateReport, FailureReport, IdentityReport, RenewalReport, Verdict,
    },
};

/// Facts one below the other, the verdict first.
pub(super) fn describe(report: &IdentityReport) -> String {
    let mut text = format!("{}\n", one_line(&headline(report)));
    let mut fact = |name: &str, words: String| {
        // a `String` takes whatever is written to it
        let _ = writeln!(text, "  {name:<14}{}", one_line(&words));
    };
    let now = report.now;
    if let Some(certificate) = &report.certificate {
        fact("SPIFFE ID", certificate.spiffe_id.clone());
        fact("serial", certificate.serial.clone());
        fact("valid", validity(certificate, now));
        fact(
            "signed by",
            authority("issuing CA", &certificate.issuer, now),
        );
        fact("root", root(certificate, now));
    }
    for (name, words) in renewal(&report.renewal, now) {
        fact(name, words);
    }
    let clock = report.clock_skew_seconds.map_or_else(
        || "not compared with the control plane's yet".to_owned(),
        |seconds| ClockSkew { seconds }.to_string(),
    );
    fact("clock", clock);
    text
}

/// The report for programs. JSON escapes only the first 32 control characters; what a terminal
/// obeys of the others is escaped here, which means the same.
pub(super) fn json(report: &IdentityReport) -> serde_json::Result<String> {
    let plain = serde_json::to_string_pretty(report)?;
    let mut text = String::with_capacity(plain.len());
    for c in plain.chars() {
        if c != '\n' && moves_the_cursor(c) {
            let _ = write!(text, "\\u{:04x}", u32::from(c));
        } else {
            text.push(c);
        }
    }
    Ok(text)
}

fn headline(report: &IdentityReport) -> String {
    let who = report.certificate.as_ref().map_or_else(
        || "this workload".to_owned(),
        |certificate| match &certificate.workload {
            Some(name) => format!("{name} ({})", certificate.spiffe_id),
            None => certificate.spiffe_id.clone(),
        },
    );
    let left = report
        .certificate
        .as_ref()
        .map_or_else(String::new, |certificate| {
            span(certificate.not_after.saturating_sub(report.now))
        });
    match report.verdict {
        Verdict::Valid => format!("{who}: valid, and renewed by itself"),
        Verdict::Overdue => format!("{who}: valid for {left}, but its renewal is overdue"),
        Verdict::Failing => format!("{who}: valid for {left}, but it can't be renewed"),
        Verdict::Expired => {
            format!("{who}: the certificate has ended, so nothing is accepted or dialled")
        }
        Verdict::NoCertificate => {
            format!("{who}: no certificate yet, so nothing is accepted or dialled")
        }
        _ => format!("{who}: see below"),
    }
}

fn validity(certificate: &CertificateReport, now: u64) -> String {
    format!(
        "{} to {} ({} left)",
        date(certificate.not_before),
        date(certificate.not_after),
        span(certificate.not_after.saturating_sub(now))
    )
}

fn authority(what: &str, authority: &AuthorityReport, now: u64) -> String {
    let mut words = what.to_owned();
    if let Some(key_id) = &authority.key_id {
        words.push_str(&format!(", key id {key_id}"));
    }
    if let Some(end) = authority.not_after {
        words.push_str(&format!(", until {} ({})", date(end), relative(end, now)));
    }
    words
}

fn root(certificate: &CertificateReport, now: u64) -> String {
    let of = format!(
        "1 of {} in the trust bundle {}",
        certificate.roots,
        certificate.trust_bundle.get(..12).unwrap_or_default()
    );
    match &certificate.root {
        Some(root) => authority(&of, root, now),
        None => "none in the trust bundle proves it: peers refuse this certificate".to_owned(),
    }
}

fn renewal(renewal: &RenewalReport, now: u64) -> Vec<(&'static str, String)> {
    let when = |at: u64| format!("{} ({})", date(at), relative(at, now));
    let mut facts = Vec::new();
    if let Some(ended) = renewal.ended {
        facts.push(("ended", when(ended)));
    }
    match renewal.issued {
        Some(issued) => facts.push(("issued", when(issued))),
        None if renewal.due.is_some() => {
            facts.push(("issued", "to an earlier run of this sidecar".to_owned()));
        }
        None => {}
    }
    if let Some(due) = renewal.due {
        facts.push(("renewal due", when(due)));
    }
    if let Some(failure) = &renewal.failure {
        facts.extend(failed(failure, now));
    }
    facts
}

fn failed(failure: &FailureReport, now: u64) -> [(&'static str, String); 4] {
    let attempts = match failure.attempts {
        1 => "1 attempt".to_owned(),
        more => format!("{more} attempts"),
    };
    let since = format!(
        "since {} ({}), {attempts}",
        date(failure.since),
        relative(failure.since, now)
    );
    [
        ("failing", since),
        ("why", failure.error.clone()),
        ("what to do", failure.advice.clone()),
        ("next attempt", relative(failure.next_attempt, now)),
    ]
}

fn relative(at: u64, now: u64) -> String {
    if at >= now {
        format!("in {}", span(at - now))
    } else {
        format!("{} ago", span(now - at))
    }
}

fn span(seconds: u64) -> String {
    in_words(Duration::from_secs(seconds))
}

fn date(unix: u64) -> String {
    let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(unix));
    time.map_or_else(|| format!("{unix} s after 1970"), readable)
}

/// Whoever listens at the admin address wrote the report, and errors in it quote others.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if moves_the_cursor(c) { ' ' } else { c })
        .collect()
}

/// What a terminal obeys instead of showing: control characters, line ends and directions of
/// Unicode.
fn moves_the_cursor(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests;
