//! The names a sidecar has asked for, and what it knows of each. Pure but for the clock of
//! uses; one task owns it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_lite_proto::{
    sidecar::{DIRECTORY_IDLE, MAX_DIRECTORY_NAMES, MAX_NEW_NAMES_PER_SECOND},
    wire::mesh_lite::v1 as wire,
    workload_directory::{Answer, Name, wire_conversion::InvalidAnswer},
};
use tokio::time::Instant;

use super::{Answers, Known};

/// A name that was used within this can't be pushed out by a new one.
const SHORTEST_IDLE: Duration = Duration::from_secs(30);

/// All names, answered or not.
pub(super) struct Table {
    entries: HashMap<Arc<Name>, Entry>,
    new_names: Allowance,
}

struct Entry {
    known: Option<Arc<Known>>,
    last_used: Arc<AtomicU64>,
    /// A change could not be understood: further changes have nothing right to build on.
    needs_whole: bool,
}

/// What came of a new name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It was there already.
    Before,
    /// It must be asked for; the other name, if any, was forgotten for it.
    New {
        forgotten: Option<Arc<Name>>,
    },
    TooMany,
    TooFast,
}

/// What came of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Learned {
    /// It is what the data path shall see from now on.
    Changed,
    Same,
    /// Nobody asked, or not any more.
    NotAsked,
    /// It could not be understood. Whether the data path shall see something else now, and
    /// whether the name must be asked for anew, to get its answer whole.
    Refused {
        reason: InvalidAnswer,
        changed: bool,
        ask_again: bool,
    },
}

impl Table {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            entries: HashMap::new(),
            new_names: Allowance::full(now),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<Name>> {
        self.entries.keys()
    }

    pub(super) fn answer(&self, name: &Name) -> Option<&Arc<Answer>> {
        self.entries.get(name)?.answer()
    }

    /// An answer from before this process started.
    pub(super) fn restore(&mut self, name: Name, answer: Answer, used: u64) {
        if self.entries.len() < MAX_DIRECTORY_NAMES {
            let mut entry = Entry::used_at(used);
            entry.set(Arc::new(answer));
            self.entries.insert(Arc::new(name), entry);
        }
    }

    /// A connection wants to know `name`; `used` is now, in milliseconds.
    pub(super) fn add(&mut self, name: &Name, used: u64, now: Instant) -> Added {
        if let Some(entry) = self.entries.get(name) {
            entry.last_used.store(used, Ordering::Relaxed);
            return Added::Before;
        }
        if !self.new_names.take(now) {
            return Added::TooFast;
        }
        let mut forgotten = None;
        if self.entries.len() >= MAX_DIRECTORY_NAMES {
            let Some(oldest) = self.oldest_idle(used) else {
                return Added::TooMany;
            };
            self.entries.remove(&oldest);
            forgotten = Some(oldest);
        }
        self.entries
            .insert(Arc::new(name.clone()), Entry::used_at(used));
        Added::New { forgotten }
    }

    fn oldest_idle(&self, used: u64) -> Option<Arc<Name>> {
        let (name, entry) = self
            .entries
            .iter()
            .min_by_key(|(_, entry)| entry.last_used.load(Ordering::Relaxed))?;
        (entry.idle(used) >= SHORTEST_IDLE).then(|| Arc::clone(name))
    }

    /// Forgets the names that nobody used for long, and returns them.
    pub(super) fn forget_idle(&mut self, used: u64) -> Vec<Arc<Name>> {
        let mut forgotten = Vec::new();
        self.entries.retain(|name, entry| {
            let keep = entry.idle(used) < DIRECTORY_IDLE;
            if !keep {
                forgotten.push(Arc::clone(name));
            }
            keep
        });
        forgotten
    }

    pub(super) fn learn(&mut self, name: &Name, answer: &wire::DirectoryAnswer) -> Learned {
        let Some(entry) = self.entries.get_mut(name) else {
            return Learned::NotAsked;
        };
        let before = entry
            .answer()
            .filter(|_| !entry.needs_whole)
            .map(Arc::as_ref);
        let read = Answer::from_wire(answer, before).and_then(|read| fits(name, read));
        match read {
            Ok(read) => {
                entry.needs_whole = false;
                if entry.answer().is_some_and(|before| **before == read) {
                    return Learned::Same;
                }
                entry.set(Arc::new(read));
                Learned::Changed
            }
            Err(reason) => {
                // asked for once: a server that can't say it better is not asked for ever
                let ask_again = is_change(answer) && !entry.needs_whole;
                entry.needs_whole = true;
                let changed = entry.refuse(&reason);
                Learned::Refused {
                    reason,
                    changed,
                    ask_again,
                }
            }
        }
    }

    /// What the data path reads.
    pub(super) fn publish(&self) -> Answers {
        self.entries
            .iter()
            .filter_map(|(name, entry)| Some((Arc::clone(name), Arc::clone(entry.known.as_ref()?))))
            .collect()
    }
}

impl Entry {
    fn used_at(used: u64) -> Self {
        Self {
            known: None,
            last_used: Arc::new(AtomicU64::new(used)),
            needs_whole: false,
        }
    }

    fn idle(&self, used: u64) -> Duration {
        Duration::from_millis(used.saturating_sub(self.last_used.load(Ordering::Relaxed)))
    }

    fn answer(&self) -> Option<&Arc<Answer>> {
        self.known.as_ref().map(|known| &known.answer)
    }

    fn set(&mut self, answer: Arc<Answer>) {
        let last_used = Arc::clone(&self.last_used);
        self.known = Some(Arc::new(Known { answer, last_used }));
    }

    /// The last good answer stays if all it allows is mutual TLS with exact peers. If it let
    /// plaintext pass, that is over: the answer we can't read may be what forbids it.
    fn refuse(&mut self, reason: &InvalidAnswer) -> bool {
        if self.answer().is_some_and(|answer| only_mutual_tls(answer)) {
            return false;
        }
        let unknown = Answer::Unknown {
            reason: format!("the control plane's answer can't be used: {reason}"),
        };
        let changed = self.answer().is_none_or(|before| **before != unknown);
        self.set(Arc::new(unknown));
        changed
    }
}

fn only_mutual_tls(answer: &Answer) -> bool {
    match answer {
        Answer::Endpoint(endpoint) => endpoint.meshed.is_some(),
        Answer::Service(service) => service
            .endpoints
            .values()
            .all(|endpoint| endpoint.meshed.is_some()),
        Answer::Outside | Answer::Unknown { .. } => false,
    }
}

fn is_change(answer: &wire::DirectoryAnswer) -> bool {
    matches!(&answer.answer, Some(wire::directory_answer::Answer::Service(service)) if !service.whole)
}

/// An answer about another address than the one asked for would send bytes to it.
fn fits(name: &Name, answer: Answer) -> Result<Answer, InvalidAnswer> {
    let misfit = |found: String| {
        Err(InvalidAnswer::Name(format!(
            "{found} as the answer to {name}"
        )))
    };
    match (name, &answer) {
        (Name::Address(asked), Answer::Endpoint(endpoint)) if endpoint.address != *asked => {
            misfit(endpoint.address.to_string())
        }
        (Name::Service(asked), Answer::Service(service)) if service.name != *asked => {
            misfit(service.name.to_string())
        }
        (Name::Service(_), Answer::Endpoint(endpoint)) => misfit(endpoint.address.to_string()),
        _ => Ok(answer),
    }
}

/// New names a second, with a second's worth saved up.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    const MOST: f64 = MAX_NEW_NAMES_PER_SECOND as f64;

    fn full(now: Instant) -> Self {
        Self {
            left: Self::MOST,
            at: now,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * Self::MOST;
        self.left = (self.left + gained).min(Self::MOST);
        self.at = now;
        let enough = self.left >= 1.0;
        if enough {
            self.left -= 1.0;
        }
        enough
    }
}

#[cfg(test)]
mod tests;
