//! What is said of a connection that a sidecar recorded.

use mesh_lite_proto::decision_record::{Direction, Utc};

use super::{
    Explanation,
    judged::StepTaken,
    recorded::{RecordedCall, Verdict},
    wording::{self, Text},
};
use crate::terminal::Paint;

impl RecordedCall {
    pub(super) fn describe(&self, paint: Paint) -> String {
        let record = &self.record;
        let mut text = Text::new(paint);
        text.headline(self.verdict(), &self.caller(), &self.destination());
        self.why(&mut text);
        if let Some(step) = record.step {
            text.fact("step", &wording::step(StepTaken::Policy(step)));
        }
        if let Some(policy) = &record.policy {
            text.fact("policy", &policy.to_string());
        }
        text.fact("connection", &self.when());
        if let Some(claim) = self.claim() {
            text.fact("", &claim);
        }
        if let Some(end) = self.end() {
            text.fact("ended", &end);
        }
        let recorded = format!("by {} ({})", self.recorder, self.found_in);
        text.fact("recorded", &recorded);
        if let Some(words) = self.refusal() {
            text.fact("next", words.next);
        }
        self.ask_there(&mut text);
        // what they say now is told with the rest of now
        if !matches!(&self.now, Some(Ok(now)) if self.holds(now)) {
            let title = "dry runs and audits of then, which decided nothing";
            text.dry_runs(title, &record.recorded, record.recorded_more);
        }
        match &self.now {
            Some(Ok(now)) => self.now(now, &mut text),
            Some(Err(why)) => text.fact("now", why),
            None => {}
        }
        text.out
    }

    fn why(&self, text: &mut Text) {
        let (refusal, error) = (self.refusal(), self.record.error.as_deref());
        match refusal {
            Some(words) => text.fact("why", words.what),
            None => text.fact("why", &self.reason()),
        }
        if let Some(error) = error {
            text.fact("", error);
        }
        if refusal.is_some() {
            text.fact("", &format!("(the access log says {})", self.reason()));
        }
    }

    fn ask_there(&self, text: &mut Text) {
        if self.ask.is_empty() {
            return;
        }
        let whose = self.record.destination.as_ref();
        let whose = whose.map_or_else(String::new, |to| match &to.identity {
            Some(id) => format!(" of {id} at {}", to.address.ip()),
            None => format!(" at {}", to.address.ip()),
        });
        let words = format!("the sidecar{whose} knows the whole reason; each of these says it:");
        text.fact("ask there", &words);
        for command in &self.ask {
            text.fact("", command);
        }
    }

    fn now(&self, now: &Explanation, text: &mut Text) {
        if self.holds(now) {
            text.fact("now", &format!("the same, by {}", now.basis.what));
            text.broken(&now.judged);
            text.shipped(now);
            return text.detail(now);
        }
        let verdict = match now.judged.is_allowed() {
            true => "ALLOWED",
            false => "DENIED",
        };
        let was_allowed = self.verdict() == Verdict::Allowed;
        let too = if was_allowed == now.judged.is_allowed() {
            ", for another reason"
        } else {
            ""
        };
        // documents may be of another mesh, or not in force yet
        text.title(&match now.basis.documents {
            Some(_) => format!("by {} it would be {verdict}{too}", now.basis.what),
            None => format!("policy has changed since: now it would be {verdict}{too}"),
        });
        text.fact("why", &now.judged.reason());
        text.fact("step", &wording::step(now.judged.step()));
        if let Some(policy) = now.judged.policy() {
            text.fact("policy", &policy.to_string());
        }
        if now.basis.documents.is_none() {
            text.fact("by", &now.basis.what);
        }
        text.broken(&now.judged);
        text.shipped(now);
        text.detail(now);
    }

    fn caller(&self) -> String {
        let source = &self.record.source;
        let who = source.identity.as_ref();
        let who = who.map_or_else(|| "plaintext".to_owned(), ToString::to_string);
        format!("{who} from {}", source.address.ip())
    }

    fn destination(&self) -> String {
        let Some(destination) = &self.record.destination else {
            return match self.original_destination {
                Some(address) => address.to_string(),
                None => "a destination that is not recorded".to_owned(),
            };
        };
        match (self.record.direction, &destination.identity) {
            (Direction::Inbound, _) => {
                format!("{} port {}", self.recorder, destination.address.port())
            }
            (Direction::Outbound, Some(id)) => format!("{id} at {}", destination.address),
            (Direction::Outbound, None) => destination.address.to_string(),
        }
    }

    fn when(&self) -> String {
        let record = &self.record;
        let last = Utc(record.last);
        match record.count {
            1 if record.open > 0 => format!("{} at {last}, which is open", self.id),
            1 => format!("{} at {last}", self.id),
            count => format!(
                "{}; there were {count} like it from {} to {last}, {} of them open",
                self.id,
                Utc(record.first),
                record.open
            ),
        }
    }

    fn claim(&self) -> Option<String> {
        let claim = self.claim?;
        let borne_out = match claim.is_borne_out {
            Some(true) => ", and that side's record is of the same caller and port",
            Some(false) => ", and that side's record is of another caller or port",
            None => "; a caller may say so of any connection",
        };
        Some(format!(
            "its caller claims that it is {} on its side{borne_out}",
            claim.id
        ))
    }

    fn end(&self) -> Option<String> {
        let Some(ending) = &self.ending else {
            let at = Utc(self.record.ended.filter(|_| self.record.is_let_through())?);
            return Some(match self.record.count {
                1 => format!("{at}; how, its access log says: give it by --records"),
                _ => format!(
                    "the latest of them {at}; how this one did, its access log says: give it by \
                     --records"
                ),
            });
        };
        let mut words = Utc(ending.at).to_string();
        if ending.is_cut() {
            words.push_str(": cut");
        }
        if let Some(end) = &ending.end {
            words.push_str(if ending.is_cut() { ", " } else { ": " });
            words.push_str(end);
        }
        if let Some(error) = &ending.error {
            words.push_str(": ");
            words.push_str(error);
        }
        Some(words)
    }
}
