//! The namespaces of the cluster: what their labels and annotations say about the pods in them.
//!
//! Known by watch. One that is not known yet, because the watch is behind, is asked for; where that
//! fails nothing is guessed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::watch, time};

use crate::namespace_facts::NamespaceFacts;

/// Well below the three seconds after which the API server gives up on the webhook.
const ASK_DEADLINE: Duration = Duration::from_millis(1500);

type Known = BTreeMap<String, Arc<NamespaceFacts>>;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Namespaces {
    api: Api<DynamicObject>,
    /// `None` before the first list.
    known: watch::Receiver<Option<Arc<Known>>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum UnknownNamespace {
    #[error("there is no namespace {0:?}")]
    Absent(String),
    #[error(
        "what the namespace {namespace:?} says of its pods is not known and could not be asked for: {reason}. Try again"
    )]
    NotAnswered { namespace: String, reason: String },
}

impl Namespaces {
    /// With the task that keeps them, which runs until nobody wants to know any more.
    pub(crate) fn follow(client: Client) -> (Self, impl Future<Output = ()>) {
        let resource = ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Namespace".to_owned(),
            plural: "namespaces".to_owned(),
        };
        let api: Api<DynamicObject> = Api::all_with(client, &resource);
        let (publish, known) = watch::channel(None);
        let namespaces = Self {
            api: api.clone(),
            known,
        };
        (namespaces, follow(api, publish))
    }

    /// Whether all namespaces were listed once.
    pub(crate) fn listed(&self) -> bool {
        self.known.borrow().is_some()
    }

    /// # Errors
    /// If the namespace is not there, or nobody could say.
    pub(crate) async fn facts(
        &self,
        namespace: &str,
    ) -> Result<Arc<NamespaceFacts>, UnknownNamespace> {
        let known = self.known.borrow().clone();
        if let Some(facts) = known.and_then(|known| known.get(namespace).cloned()) {
            return Ok(facts);
        }
        let not_answered = |reason: String| UnknownNamespace::NotAnswered {
            namespace: namespace.to_owned(),
            reason: reason.escape_debug().to_string(),
        };
        // a path is made of it
        if !is_name(namespace) {
            return Err(UnknownNamespace::Absent(namespace.to_owned()));
        }
        match time::timeout(ASK_DEADLINE, self.api.get_opt(namespace)).await {
            Err(_) => Err(not_answered(format!("no answer within {ASK_DEADLINE:?}"))),
            Ok(Err(error)) => Err(not_answered(error.to_string())),
            Ok(Ok(None)) => Err(UnknownNamespace::Absent(namespace.to_owned())),
            Ok(Ok(Some(object))) => Ok(Arc::new(facts_of(&object))),
        }
    }
}

/// As RFC 1123 has labels, which namespaces are named by.
fn is_name(namespace: &str) -> bool {
    (1..=63).contains(&namespace.len())
        && namespace
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn facts_of(object: &DynamicObject) -> NamespaceFacts {
    fn entries(map: Option<&BTreeMap<String, String>>) -> impl Iterator<Item = (&str, &str)> {
        map.into_iter()
            .flatten()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
    let metadata = &object.metadata;
    NamespaceFacts::new(
        entries(metadata.labels.as_ref()),
        entries(metadata.annotations.as_ref()),
    )
}

async fn follow(api: Api<DynamicObject>, publish: watch::Sender<Option<Arc<Known>>>) {
    let mut events = watcher(api, watcher::Config::default())
        .default_backoff()
        .boxed();
    let mut listed = Known::new();
    loop {
        let event = tokio::select! {
            () = publish.closed() => return,
            event = events.next() => event,
        };
        match event {
            None => return,
            Some(Ok(event)) => take(event, &mut listed, &publish),
            Some(Err(error)) => tracing::warn!(
                error = %error.to_string().escape_debug(),
                "namespaces can't be watched; what was known of them is still used"
            ),
        }
    }
}

fn take(
    event: watcher::Event<DynamicObject>,
    listed: &mut Known,
    publish: &watch::Sender<Option<Arc<Known>>>,
) {
    let change = |change: &dyn Fn(&mut Known)| {
        publish.send_if_modified(|known| {
            if let Some(known) = known {
                change(Arc::make_mut(known));
            }
            false // nobody waits for it
        });
    };
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(object) => {
            let facts = Arc::new(facts_of(&object));
            listed.extend(object.metadata.name.map(|name| (name, facts)));
        }
        watcher::Event::InitDone => {
            publish.send_replace(Some(Arc::new(std::mem::take(listed))));
        }
        watcher::Event::Apply(object) => {
            let facts = Arc::new(facts_of(&object));
            if let Some(name) = object.metadata.name {
                change(&|known| {
                    known.insert(name.clone(), Arc::clone(&facts));
                });
            }
        }
        watcher::Event::Delete(object) => {
            if let Some(name) = object.metadata.name {
                change(&|known| {
                    known.remove(&name);
                });
            }
        }
    }
}
