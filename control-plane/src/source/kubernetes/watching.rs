//! Follows all objects of one kind: a list, then changes, for ever.
//!
//! After any trouble the list is read anew, whole, in place of what was known: so what is answered
//! is right again at that moment, and it is known that the API server is back.

use std::{collections::BTreeMap, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    runtime::watcher::{self, Event, watcher},
};
use tokio::{
    sync::mpsc,
    time::{self, Instant},
};

use super::{kinds::WatchedKind, objects::ObjectName};
use crate::certificate_authority::random::random_bytes;

/// An API server ends a watch after this long, and another follows; one that is silent for longer
/// is away.
const WATCH_SECONDS: u32 = 60;
/// A page of a list, or the next word of one.
const LIST_DEADLINE: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A watch that runs for so long after a trouble, or says something, is well again: until then it
/// is not believed, since lists may work where watches do not.
const WELL_AFTER: Duration = Duration::from_secs(5);
/// And after this long the next trouble is a first one.
const HELD_AFTER: Duration = Duration::from_secs(60);

/// What became of the objects of a kind.
pub(super) enum Change<T> {
    /// These, and no others.
    All(BTreeMap<ObjectName, T>),
    Put(ObjectName, T),
    Gone(ObjectName),
}

/// Why objects of a kind are not followed at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// When a list or a change was last heard of.
    pub(super) since: Instant,
    pub(super) reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    /// No answer, or one that says nothing.
    Away(String),
    /// We have no right to read them.
    Forbidden,
    /// It has no objects of this kind.
    NoSuchKind,
}

/// Something that was seen of a kind of objects.
pub(super) enum Seen<T> {
    Change(Change<T>),
    Trouble(Option<Trouble>),
}

/// Reads what is used of an object; `None`: nothing.
pub(super) type Read<T> = fn(DynamicObject) -> Option<T>;

/// Until nobody listens.
pub(super) async fn follow<T: Send + 'static>(
    client: Client,
    kind: WatchedKind,
    read: Read<T>,
    seen: mpsc::Sender<(WatchedKind, Seen<T>)>,
) {
    let api = Api::<DynamicObject>::all_with(client, &resource(kind));
    let config = watcher::Config::default()
        .timeout(WATCH_SECONDS)
        .page_size(kind.page());
    let mut health = Health::new();
    loop {
        let stream = watcher(api.clone(), config.clone()).boxed();
        let mut following = Following {
            stream,
            listed: Some(BTreeMap::new()),
            read,
        };
        let reason = loop {
            let change = match health.wait_for(&mut following).await {
                Some(Ok(change)) => Some(change),
                Some(Err(reason)) => break reason,
                None => None,
            };
            let told = health.heard(change.as_ref(), Instant::now());
            if let Some(trouble) = told
                && send(&seen, kind, Seen::Trouble(trouble)).await.is_err()
            {
                return;
            }
            if let Some(change) = change
                && send(&seen, kind, Seen::Change(change)).await.is_err()
            {
                return;
            }
        };
        tracing::debug!(kind = kind.plural(), ?reason, "objects are not followed");
        if let Some(trouble) = health.failed(reason)
            && send(&seen, kind, Seen::Trouble(Some(trouble)))
                .await
                .is_err()
        {
            return;
        }
        time::sleep(spread(health.next_pause())).await;
    }
}

/// How well objects of a kind are followed.
struct Health {
    /// Of the API server.
    last_word: Instant,
    /// When the list was read that the present watch follows.
    listed_at: Option<Instant>,
    was_listed: bool,
    /// Since all was well.
    failures: u32,
    told: Option<Reason>,
    pause: Duration,
}

impl Health {
    fn new() -> Self {
        Self {
            last_word: Instant::now(),
            listed_at: None,
            was_listed: false,
            failures: 0,
            told: None,
            pause: FIRST_PAUSE,
        }
    }

    /// `None`: nothing came, and that is as good as a word.
    async fn wait_for<T>(&self, following: &mut Following<T>) -> Option<Result<Change<T>, Reason>> {
        let after = if self.failures > 0 {
            WELL_AFTER
        } else {
            HELD_AFTER
        };
        match self.listed_at.and_then(|at| at.checked_add(after)) {
            Some(at) if !self.is_well() => time::timeout_at(at, following.next()).await.ok(),
            _ => Some(following.next().await),
        }
    }

    fn is_well(&self) -> bool {
        self.failures == 0 && self.pause == FIRST_PAUSE
    }

    /// Answers what to tell, if anything.
    fn heard<T>(&mut self, change: Option<&Change<T>>, now: Instant) -> Option<Option<Trouble>> {
        match change {
            Some(Change::All(_)) => {
                self.last_word = now;
                self.listed_at = Some(now);
                self.was_listed = true;
                // it is as new as the list
                let reason = self.told.clone()?;
                return Some(Some(Trouble { since: now, reason }));
            }
            Some(_) => {
                self.last_word = now;
                self.pause = FIRST_PAUSE;
            }
            None if self.failures == 0 => self.pause = FIRST_PAUSE,
            None => {}
        }
        self.failures = 0;
        self.told.take().map(|_| None)
    }

    fn failed(&mut self, reason: Reason) -> Option<Trouble> {
        self.listed_at = None;
        self.failures = self.failures.saturating_add(1);
        // a watch that ends once in a while, and starts again, is no trouble
        if self.failures == 1 && self.was_listed && matches!(reason, Reason::Away(_)) {
            return None;
        }
        self.told = Some(reason.clone());
        Some(Trouble {
            since: self.last_word,
            reason,
        })
    }

    /// Twice as long each time.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        pause
    }
}

async fn send<T>(
    seen: &mpsc::Sender<(WatchedKind, Seen<T>)>,
    kind: WatchedKind,
    what: Seen<T>,
) -> Result<(), ()> {
    seen.send((kind, what)).await.map_err(|_| ())
}

/// One list, and the watch that follows it.
struct Following<T> {
    stream: BoxStream<'static, watcher::Result<Event<DynamicObject>>>,
    /// While the list is read, what was read of it.
    listed: Option<BTreeMap<ObjectName, T>>,
    read: Read<T>,
}

impl<T> Following<T> {
    async fn next(&mut self) -> Result<Change<T>, Reason> {
        loop {
            // the watcher itself notices a watch that is silent for too long
            let event = match self.listed {
                Some(_) => time::timeout(LIST_DEADLINE, self.stream.next())
                    .await
                    .map_err(|_| Reason::Away(format!("no answer for {LIST_DEADLINE:?}")))?,
                None => self.stream.next().await,
            };
            let ended = || Reason::Away("the watch ended".to_owned());
            match event.ok_or_else(ended)?.map_err(|error| reason(&error))? {
                Event::Init => self.listed = Some(BTreeMap::new()),
                Event::InitApply(object) => {
                    let name = ObjectName::of(&object.metadata);
                    if let (Some(listed), Some(read)) = (&mut self.listed, (self.read)(object)) {
                        listed.insert(name, read);
                    }
                }
                Event::InitDone => {
                    if let Some(listed) = self.listed.take() {
                        return Ok(Change::All(listed));
                    }
                }
                Event::Apply(object) => {
                    let name = ObjectName::of(&object.metadata);
                    return Ok(match (self.read)(object) {
                        Some(read) => Change::Put(name, read),
                        None => Change::Gone(name),
                    });
                }
                Event::Delete(object) => {
                    return Ok(Change::Gone(ObjectName::of(&object.metadata)));
                }
            }
        }
    }
}

pub(super) fn resource(kind: WatchedKind) -> ApiResource {
    let (group, version) = kind.group_and_version();
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        },
        kind: kind.name().to_owned(),
        plural: kind.plural().to_owned(),
    }
}

fn reason(error: &watcher::Error) -> Reason {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    };
    match status.map(|status| status.code) {
        Some(403) => Reason::Forbidden,
        Some(404) => Reason::NoSuchKind,
        _ => Reason::Away(error.to_string()),
    }
}

/// Replicas that lost one API server together come back one after the other: 75 to 125 %.
fn spread(pause: Duration) -> Duration {
    let [byte] = random_bytes().unwrap_or([128]);
    pause
        .saturating_mul(192_u32.saturating_add(u32::from(byte) / 2))
        .checked_div(256)
        .unwrap_or(pause)
}

#[cfg(test)]
mod tests;
