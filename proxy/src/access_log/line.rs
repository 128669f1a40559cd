//! Records as lines of JSON. Field names are ztunnel's where it has them.

use std::{
    fmt::{self, Display, Write},
    time::SystemTime,
};

use mesh_lite_proto::{
    authorization::Decision,
    decision_record::Utc,
    tunnel::{DecidedBy, Status},
};

use super::record::{CloseRecord, OpenRecord, OriginalDestination, Outcome, Peer};

/// Appends the line of an opened, denied or refused connection.
pub(super) fn opened(out: &mut String, record: &OpenRecord) {
    let mut line = Line::start(out, "open", record.at);
    line.text("conn_id", record.connection);
    line.text("direction", record.direction.as_str());
    line.peer(["src.addr", "src.identity", "src.serial"], &record.source);
    if let Some(destination) = &record.destination {
        line.peer(["dst.addr", "dst.identity", "dst.serial"], destination);
    }
    match record.original_destination {
        Some(OriginalDestination::Known(address)) => line.text("original_dst", address),
        Some(OriginalDestination::Claimed(address)) => {
            line.text("original_dst_claimed", address);
        }
        None => {}
    }
    if let Some(tls) = record.tls {
        line.text("tls.version", tls.version);
        line.text("tls.group", tls.group);
    }
    line.outcome(&record.outcome);
    if !record.trace_id.as_str().is_empty() {
        line.text("trace_id_claimed", record.trace_id.as_str());
    }
    line.end();
}

/// Appends the line of an ended connection.
pub(super) fn closed(out: &mut String, record: &CloseRecord) {
    let mut line = Line::start(out, "close", record.at);
    line.text("conn_id", record.connection);
    line.text("direction", record.direction.as_str());
    line.number("bytes_sent", record.bytes_sent);
    line.number("bytes_recv", record.bytes_received);
    line.number("duration_ms", record.duration.as_millis());
    line.text("end", record.end.as_str());
    if let Some(error) = &record.error {
        line.text("error", error);
    }
    line.end();
}

/// Appends the line that says how many lines are missing before it.
pub(super) fn dropped(out: &mut String, at: SystemTime, lines: u64) {
    let mut line = Line::start(out, "dropped", at);
    line.number("lines", lines);
    line.end();
}

/// One JSON object in the making.
struct Line<'a>(&'a mut String);

impl<'a> Line<'a> {
    fn start(out: &'a mut String, event: &'static str, at: SystemTime) -> Self {
        let mut line = Line(out);
        line.push(format_args!("{{\"time\":\"{}\"", Utc(at)));
        line.text("event", event);
        line
    }

    fn end(self) {
        self.0.push_str("}\n");
    }

    fn text(&mut self, name: &str, value: impl Display) {
        self.push(format_args!(",\"{name}\":\""));
        // what goes into a `String` can't fail
        let _ = write!(Escaped(self.0), "{value}");
        self.0.push('"');
    }

    fn number(&mut self, name: &str, value: impl Display) {
        self.push(format_args!(",\"{name}\":{value}"));
    }

    fn peer(&mut self, [address, identity, serial]: [&str; 3], peer: &Peer) {
        self.text(address, peer.address);
        if let Some(id) = &peer.identity {
            self.text(identity, id);
        }
        if let Some(number) = &peer.serial {
            self.text(serial, number);
        }
    }

    fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Decided(decision) => self.decision(decision),
            Outcome::DecidedPlaintext(decision, reason) => {
                self.decision(decision);
                self.text("plaintext", reason.as_str());
            }
            Outcome::Refused(refusal, detail) => {
                self.text("decision", "refuse");
                self.text("reason", refusal.as_str());
                if let Some(detail) = detail {
                    self.text("error", detail);
                }
            }
            Outcome::Answered(status, decided_by) => self.answer(*status, decided_by.as_deref()),
            Outcome::Unanswered(error) => {
                self.text("decision", "unanswered");
                if let Some(error) = error {
                    self.text("error", error);
                }
            }
            Outcome::PassedPlaintext(reason) => {
                self.text("decision", "pass");
                self.text("plaintext", reason.as_str());
            }
        }
    }

    /// What the other sidecar says that it decided, and by which policy.
    fn answer(&mut self, status: Status, decided_by: Option<&str>) {
        let decision = match status {
            Status::Ok => "allow",
            Status::Denied => "deny",
            _ => "refuse",
        };
        self.text("decision", decision);
        self.text("decided_by", "peer");
        self.text("answer", status.as_str());
        if let Some(Ok(named)) = decided_by.map(DecidedBy::new) {
            self.text("policy", named.policy());
            self.text("policy_source", named.source());
        }
    }

    fn decision(&mut self, decision: &Decision) {
        self.text(
            "decision",
            if decision.is_allowed() {
                "allow"
            } else {
                "deny"
            },
        );
        self.text("step", decision.step);
        if let Some(policy) = &decision.policy {
            self.text("policy", &policy.document);
            self.text(
                "policy_source",
                format_args!("{}:{}", policy.file, policy.line),
            );
        }
        if let Some(rule) = decision.rule {
            self.number("rule", rule);
        }
        self.text("reason", decision.reason());
        if !decision.recorded.is_empty() {
            self.recorded(decision);
        }
    }

    /// What dry-run and AUDIT policies would have done.
    fn recorded(&mut self, decision: &Decision) {
        self.0.push_str(",\"recorded\":[");
        for (at, recorded) in decision.recorded.iter().enumerate() {
            self.0.push_str(if at == 0 {
                "{\"action\":\""
            } else {
                ",{\"action\":\""
            });
            self.0.push_str(recorded.action.as_str());
            self.0.push('"');
            self.text("policy", &recorded.policy.document);
            let place = format_args!("{}:{}", recorded.policy.file, recorded.policy.line);
            self.text("policy_source", place);
            if let Some(rule) = recorded.rule {
                self.number("rule", rule);
            }
            self.number("dry_run", recorded.dry_run);
            self.text("effect", recorded.effect().as_str());
            self.0.push('}');
        }
        self.0.push(']');
        if decision.recorded_more > 0 {
            self.number("recorded_more", decision.recorded_more);
        }
    }

    fn push(&mut self, parts: fmt::Arguments<'_>) {
        // what goes into a `String` can't fail
        let _ = self.0.write_fmt(parts);
    }
}

/// The inside of a JSON string: nothing that goes through it ends the string or the line, or
/// steers a terminal.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
        if text.bytes().all(plain) {
            self.0.push_str(text);
            return Ok(());
        }
        text.chars().try_for_each(|c| match c {
            '"' | '\\' => {
                self.0.push('\\');
                self.0.push(c);
                Ok(())
            }
            // all of them lie below U+10000: one unit of UTF-16
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                write!(self.0, "\\u{:04x}", u32::from(c))
            }
            c => {
                self.0.push(c);
                Ok(())
            }
        })
    }
}

#[cfg(test)]
mod tests;
