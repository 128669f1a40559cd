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
    let mut since: Option<Instant> = None;
    let mut pause = FIRST_PAUSE;
    let mut was_listed = false;
    loop {
        let stream = watcher(api.clone(), config.clone()).boxed();
        let mut following = Following {
            stream,
            listed: Some(BTreeMap::new()),
            read,
        };
        let reason = loop {
            let change = match following.next().await {
                Ok(change) => change,
                Err(reason) => break reason,
            };
            if matches!(change, Change::All(_)) {
                was_listed = true;
                pause = FIRST_PAUSE;
                if since.take().is_some() && send(&seen, kind, Seen::Trouble(None)).await.is_err() {
                    return;
                }
            }
            if send(&seen, kind, Seen::Change(change)).await.is_err() {
                return;
            }
        };
        tracing::debug!(kind = kind.plural(), ?reason, "objects are not followed");
        let first = since.is_none();
        let since = *since.get_or_insert_with(Instant::now);
        // a watch that ends once in a while, and starts again, is no trouble
        let said = !first || !was_listed || !matches!(reason, Reason::Away(_));
        let trouble = Seen::Trouble(Some(Trouble { since, reason }));
        if said && send(&seen, kind, trouble).await.is_err() {
            return;
        }
        time::sleep(spread(pause)).await;
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
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
