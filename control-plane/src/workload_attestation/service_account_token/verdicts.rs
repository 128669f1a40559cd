//! What was said of tokens lately. A token is remembered by its hash.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::{sync::watch, time::Instant};

use super::{AttestedPod, NotReviewed};
use crate::certificate_authority::certificate_request::KeyPrint;

/// A pod may be made, or a right be given, that makes a refused token good.
const REFUSED_FOR: Duration = Duration::from_secs(3);
/// More pods than one control plane has connections for; some 300 bytes each. One that finds no
/// room is reviewed each time.
const MAX_ACCEPTED: usize = 32 * 1024;
/// Anybody can invent tokens: those that find no room are reviewed each time, in turn.
const MAX_REFUSED: usize = 4 * 1024;
/// Tokens with a good signature that the API server refused, most of them of deleted pods: so many
/// pods deleted within the life of a token.
const MAX_REFUSED_FOR_GOOD: usize = 64 * 1024;

pub(super) type Verdict = Result<AttestedPod, NotReviewed>;

/// What can be said of a token without asking.
pub(super) enum Known {
    Answered(Verdict),
    /// It is being asked about: the answer will be here.
    Asked(watch::Receiver<Option<Verdict>>),
}

#[derive(Default)]
pub(super) struct Verdicts {
    /// And when that was said.
    accepted: HashMap<KeyPrint, (Instant, AttestedPod)>,
    refused: HashMap<KeyPrint, (Instant, NotReviewed)>,
    asked: HashMap<KeyPrint, watch::Receiver<Option<Verdict>>>,
    /// Until the token ends.
    refused_for_good: HashMap<KeyPrint, SystemTime>,
}

impl Verdicts {
    /// An acceptance counts if it is no older than that.
    pub(super) fn of(&self, token: KeyPrint, believed: Duration, now: Instant) -> Option<Known> {
        if let Some((said, pod)) = self.accepted.get(&token)
            && now < pod.until
            && now.saturating_duration_since(*said) < believed
        {
            return Some(Known::Answered(Ok(pod.clone())));
        }
        if let Some((until, error)) = self.refused.get(&token)
            && now < *until
        {
            return Some(Known::Answered(Err(error.clone())));
        }
        let asked = self.asked.get(&token)?;
        // its sender gone without an answer is a panic: ask anew
        asked.has_changed().ok()?;
        Some(Known::Asked(asked.clone()))
    }

    /// Whoever asks waits in a bounded line: these are no more than that and a few.
    pub(super) fn asked(&mut self, token: KeyPrint, answer: watch::Receiver<Option<Verdict>>) {
        self.asked.insert(token, answer);
    }

    pub(super) fn answered(&mut self, token: KeyPrint, verdict: &Verdict, now: Instant) {
        self.asked.remove(&token);
        // one that could not be reviewed anew is as good as before, for what that is enough for
        if verdict.as_ref().err().is_none_or(NotReviewed::is_refusal) {
            self.accepted.remove(&token);
        }
        match verdict {
            Ok(pod) => {
                if self.accepted.len() >= MAX_ACCEPTED {
                    self.accepted.retain(|_, (_, pod)| now < pod.until);
                }
                if self.accepted.len() < MAX_ACCEPTED {
                    self.accepted.insert(token, (now, pod.clone()));
                }
            }
            Err(error) if error.is_refusal() => {
                if self.refused.len() >= MAX_REFUSED {
                    self.refused.retain(|_, (until, _)| now < *until);
                }
                if self.refused.len() < MAX_REFUSED {
                    let until = now.checked_add(REFUSED_FOR).unwrap_or(now);
                    self.refused.insert(token, (until, error.clone()));
                }
            }
            // whoever asks next may be luckier
            Err(_) => {}
        }
    }

    pub(super) fn refused_for_good(&mut self, token: KeyPrint, ends: SystemTime, now: SystemTime) {
        if self.refused_for_good.len() >= MAX_REFUSED_FOR_GOOD {
            self.refused_for_good.retain(|_, ends| now < *ends);
        }
        // one above the limit says that there was no room
        if self.refused_for_good.len() <= MAX_REFUSED_FOR_GOOD {
            self.refused_for_good.insert(token, ends);
        }
    }

    /// # Errors
    /// If there was no room to remember: then nobody can tell.
    pub(super) fn was_refused(&self, token: KeyPrint) -> Result<bool, NotReviewed> {
        if self.refused_for_good.contains_key(&token) {
            return Ok(true);
        }
        if self.refused_for_good.len() > MAX_REFUSED_FOR_GOOD {
            return Err(NotReviewed::Unreachable(
                "it refused more tokens lately than are remembered here".to_owned(),
            ));
        }
        Ok(false)
    }
}
