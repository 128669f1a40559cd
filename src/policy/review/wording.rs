//! How tools on recorded connections say to people what would be judged otherwise.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use mesh_lite_control_plane::policy_review::{Caveat, Documents, Flip, Recorded};
use mesh_lite_proto::decision_record::{Direction, Utc};
use mesh_lite_proxy::clock::in_words;
use serde_json::{Value, json};

use crate::terminal::{Paint, harmless};

/// Of each kind so many are shown to people; `--output json` has all.
pub(crate) const MAX_SHOWN: usize = 50;
/// Of recordings, which the reader named: as many as one looks at.
const MAX_RECORDINGS: usize = 10;
/// What may be wrong with an answer for which nobody said what the mesh was made with.
pub(crate) const SHIPPED_HINT: &str = "It is taken to be strict, as --config-dir, demo and install --strict \
                            have it; where install was without --strict, give --shipped permissive.";

/// Words about flips, as of some moment.
pub(crate) struct Wording<'a> {
    pub(crate) documents: &'a Documents,
    pub(crate) shipped_is_assumed: bool,
    pub(crate) now: SystemTime,
    pub(crate) paint: Paint,
}

impl Wording<'_> {
    /// Which recordings these are: last, as they are what the reader knows already.
    pub(crate) fn recordings(&self, recorded: &[Recorded<'_>]) -> String {
        let mut text = "\n".to_owned();
        for one in recorded.iter().take(MAX_RECORDINGS) {
            let line = format!(
                "recorded: {} by {}, {} to {}",
                one.workload.name,
                harmless(one.name),
                seconds(one.recording.since),
                seconds(one.recording.until)
            );
            let _ = writeln!(text, "{}", self.paint.faint(&line));
        }
        if let more @ 1.. = recorded.len().saturating_sub(MAX_RECORDINGS) {
            let words = format!("and by {more} more (--output json has all)");
            let _ = writeln!(text, "{}", self.paint.faint(&words));
        }
        text
    }

    /// What it rests on that nobody said what holds where no document says anything.
    pub(crate) fn shipped<'a>(
        &self,
        judged: u64,
        flips: impl IntoIterator<Item = &'a Flip<'a>>,
    ) -> String {
        if judged == 0 || !self.shipped_is_assumed {
            return String::new();
        }
        let flips = flips.into_iter().filter(|flip| flip.by_shipped_default);
        let what = match flips.fold(0, |sum: u64, flip| sum.saturating_add(flip.count)) {
            0 => format!("{} judged by", connections(judged)),
            1 => "1 connection flips by".to_owned(),
            flipped => format!("{} flip by", connections(flipped)),
        };
        let words = format!("is --shipped right? {what} the shipped default alone. {SHIPPED_HINT}");
        format!("{}\n", self.paint.odd(&words))
    }

    /// The same for programs, whatever was said.
    pub(crate) fn shipped_json(&self, judged: u64) -> Value {
        let asks = self.shipped_is_assumed && judged > 0;
        json!({
            "assumed": self.shipped_is_assumed,
            "decides": judged,
            "hint": asks.then_some(SHIPPED_HINT),
        })
    }

    /// A title, and what flips below it; nothing if nothing does.
    pub(crate) fn flips<'a>(
        &self,
        title: &str,
        flips: impl IntoIterator<Item = &'a Flip<'a>>,
        how_many: impl Fn(&Flip<'a>) -> String,
    ) -> String {
        let mut flips = flips.into_iter().peekable();
        if flips.peek().is_none() {
            return String::new();
        }
        let mut text = format!("\n{}\n", self.paint.title(title));
        for flip in flips.by_ref().take(MAX_SHOWN) {
            text.push_str(&self.flip(flip, &how_many(flip)));
        }
        let more = flips.count();
        if more > 0 {
            text.push_str(&and_more(more));
        }
        text
    }

    fn flip(&self, flip: &Flip<'_>, how_many: &str) -> String {
        let mut text = String::new();
        let to = match flip.direction {
            Direction::Inbound => format!("{}:{}", flip.workload.name, flip.destination.port()),
            Direction::Outbound => {
                let peer = flip.peer.map_or("", |peer| peer.principal());
                format!("{peer} at {}", flip.destination)
            }
        };
        let line = format!("{} → {to}", self.caller(flip));
        let _ = writeln!(text, "  {}   {how_many}", harmless(&line));
        let then = harmless(&was(flip));
        let now = harmless(&flip.now.reason);
        let verdict = if flip.now.allowed {
            self.paint.good("ALLOW")
        } else {
            self.paint.bad("DENY")
        };
        let _ = writeln!(text, "    was {then}");
        let _ = writeln!(text, "    would be {verdict}: {now}");
        text
    }

    fn caller(&self, flip: &Flip<'_>) -> String {
        let sources = || match flip.sources.first() {
            Some(only) if flip.sources.len() == 1 => only.to_string(),
            _ => format!("{} addresses", flip.sources.len()),
        };
        let Some(id) = flip.caller else {
            let known = flip.sources.first();
            let known = known.and_then(|address| self.documents.workload_at(*address));
            let name = known.map_or_else(String::new, |known| format!(" ({})", known.name));
            return format!("plaintext of {}{name}", sources());
        };
        format!("{} from {}", id.principal(), sources())
    }

    /// When, and how long ago.
    pub(crate) fn last(&self, time: SystemTime) -> String {
        format!("last {} ({})", seconds(time), self.ago(time))
    }

    pub(crate) fn ago(&self, time: SystemTime) -> String {
        let ago = self.now.duration_since(time).unwrap_or(Duration::ZERO);
        format!("{} ago", in_words(ago))
    }

    pub(crate) fn caveats(&self, caveats: &[Caveat]) -> String {
        let mut text = if caveats.is_empty() {
            String::new()
        } else {
            "\n".to_owned()
        };
        for caveat in caveats {
            let words = format!("not known: {}", harmless(&caveat.to_string()));
            let _ = writeln!(text, "{}", self.paint.odd(&words));
        }
        text
    }

    /// Documents that can't be loaded, and what was taken to hold in place of them.
    pub(crate) fn errors(&self) -> String {
        let errors = self.documents.errors();
        if errors.is_empty() {
            return String::new();
        }
        let title = match errors.len() {
            1 => "\n1 error in the documents:".to_owned(),
            more => format!("\n{} errors in the documents:", thousands(more as u64)),
        };
        let mut text = format!("{}\n", self.paint.bad(&title));
        for error in errors.iter().take(MAX_SHOWN) {
            let _ = writeln!(text, "  {}", harmless(&error.to_string()));
        }
        text.push_str(
            "  A policy that can't be loaded is taken here to deny in its scope, as it does if it \
             is new. A\n  control plane that has an earlier version of it keeps that one. \
             mesh-lite policy lint shows each\n  error with its line.\n",
        );
        text
    }
}

/// What is left out of a list that people read.
pub(crate) fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        _ => format!(
            "  and {} more (--output json has all)\n",
            thousands(more as u64)
        ),
    }
}

fn was(flip: &Flip<'_>) -> String {
    let outcome = flip.then.outcome;
    match (flip.then.policy, flip.then.reason) {
        (Some(policy), _) => format!("{outcome} by {policy}"),
        (None, Some(reason)) => format!("{outcome}: {reason}"),
        (None, None) => outcome.to_string(),
    }
}

/// How many connections there were, and when the last.
pub(crate) fn connections(count: u64) -> String {
    match count {
        1 => "1 connection".to_owned(),
        more => format!("{} connections", thousands(more)),
    }
}

/// 41,212.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// People read these: milliseconds are left out.
pub(crate) fn seconds(time: SystemTime) -> String {
    let text = Utc(time).to_string();
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_a_comma_before_each_three_digits() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (41_212, "41,212"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
