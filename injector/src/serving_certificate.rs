//! The webhook's own certificate: made here, kept in one Secret that all replicas share, replaced
//! at half of its life.
//!
//! ```text
//!   days   0            15                 15 + settling              30
//!   active ─ generation 1 ────────────────▶│ generation 2 ─────────────▶
//!   next                │─ generation 2 ──▶│
//!   caBundle  {1}       │ {1, 2}           │ {1, 2}: some replicas still serve 1
//! ```
//! A generation is a CA, whose key is thrown away as soon as it has signed, and the one serving
//! certificate that it signed. The next one is served only after the API server's registration has
//! carried its CA for some time: no call fails.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

pub(crate) use self::generation::{Generation, GenerationError, ServerName};

mod generation;
pub(crate) mod keeper;

/// Long enough that replicas that nobody watches for two weeks go on, short enough that the
/// rotation is something that happens all the time.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Between the moment when the registration was seen to carry the next CA and its first use: the
/// API server takes a changed registration within 60 ms, one of several API servers later.
pub(crate) const SETTLING: Duration = Duration::from_secs(120);

const ACTIVE: &str = "";
const NEXT: &str = "next-";
const PREVIOUS_CA: &str = "previous-ca.crt";

/// What the Secret holds, each key with its bytes.
pub(crate) type SecretData = BTreeMap<String, Vec<u8>>;

/// What is served, what was served before, and what will be.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Generations {
    /// The CA of what was served before, PEM: some replica may not have noticed yet.
    previous: Option<String>,
    active: Generation,
    next: Option<Generation>,
}

/// What has to happen to the Secret now.
#[derive(PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Rest,
    /// Write this.
    Write(Box<Generations>, Change),
}

/// Why the Secret is written, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Prepared,
    Activated,
    Replaced,
}

impl Generations {
    /// The first one, or one in place of what can't be used.
    pub(crate) fn create(name: &ServerName, now: SystemTime) -> Result<Self, GenerationError> {
        Ok(Self {
            previous: None,
            active: Generation::create(name, LIFETIME, now)?,
            next: None,
        })
    }

    /// # Errors
    /// If what is served can't be read or is not for this name. A next one that can't be read is
    /// none: it is made again.
    pub(crate) fn read(data: &SecretData, name: &ServerName) -> Result<Self, GenerationError> {
        let previous = data
            .get(PREVIOUS_CA)
            .and_then(|pem| String::from_utf8(pem.clone()).ok())
            .filter(|pem| generation::is_authority(pem));
        Ok(Self {
            previous,
            active: Generation::read(data, ACTIVE, name)?,
            next: Generation::read(data, NEXT, name).ok(),
        })
    }

    /// What the Secret is to hold.
    pub(crate) fn write(&self) -> SecretData {
        let mut data = SecretData::new();
        self.active.write(ACTIVE, &mut data);
        if let Some(next) = &self.next {
            next.write(NEXT, &mut data);
        }
        if let Some(pem) = &self.previous {
            data.insert(PREVIOUS_CA.to_owned(), pem.clone().into_bytes());
        }
        data
    }

    /// What is served.
    pub(crate) fn active(&self) -> &Generation {
        &self.active
    }

    /// The CAs that the registration must carry: of all that some replica may serve now or soon.
    /// PEM. The same for all replicas whatever their clocks say: they must not undo each other's
    /// work.
    pub(crate) fn ca_bundle(&self) -> String {
        let next = self.next.as_ref().map(Generation::authority);
        let all = self.previous.as_deref().into_iter();
        all.chain([self.active.authority()])
            .chain(next)
            .flat_map(|pem| [pem.trim_end(), "\n"])
            .collect()
    }

    /// What has to happen. `settled`: the registration has carried [`Self::ca_bundle`] for
    /// [`SETTLING`].
    pub(crate) fn step(
        &self,
        name: &ServerName,
        settled: bool,
        now: SystemTime,
    ) -> Result<Step, GenerationError> {
        if !self.active.is_valid(now) {
            // somebody was away for weeks: nobody trusts it any more, so nothing is lost
            let replaced = match &self.next {
                Some(next) if next.is_valid(now) => self.activate(next.clone()),
                _ => Self::create(name, now)?,
            };
            return Ok(Step::Write(Box::new(replaced), Change::Replaced));
        }
        match &self.next {
            Some(next) if !next.is_valid(now) => self.prepare(name, now),
            Some(next) if settled => Ok(Step::Write(
                Box::new(self.activate(next.clone())),
                Change::Activated,
            )),
            Some(_) => Ok(Step::Rest),
            None if self.active.half_life() <= now => self.prepare(name, now),
            None => Ok(Step::Rest),
        }
    }

    fn prepare(&self, name: &ServerName, now: SystemTime) -> Result<Step, GenerationError> {
        let mut prepared = self.clone();
        prepared.next = Some(Generation::create(name, LIFETIME, now)?);
        Ok(Step::Write(Box::new(prepared), Change::Prepared))
    }

    fn activate(&self, next: Generation) -> Self {
        Self {
            previous: Some(self.active.authority().to_owned()),
            active: next,
            next: None,
        }
    }
}

#[cfg(test)]
mod tests;
