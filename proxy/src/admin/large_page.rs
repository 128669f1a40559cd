//! Pages that are large, or take long to make. They are made on a thread of their own, one at a
//! time, so that probes and enforcement don't wait for them, and whoever reads the same shares it.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use http::StatusCode;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::Instant,
};

use super::Page;

/// Bodies of one page that are in memory at a time, however many read slowly.
const MAX_BODIES: usize = 4;

/// A page with its latest body, for as long as somebody reads that.
pub struct LargePage {
    make: Box<dyn Fn() -> Page + Send + Sync>,
    is_current: Box<dyn Fn() -> bool + Send + Sync>,
    places: Arc<Semaphore>,
    // held while one is made
    latest: Arc<Mutex<Option<Made>>>,
}

struct Made {
    begun: Instant,
    status: StatusCode,
    content_type: &'static str,
    /// Not kept when nobody reads it: it may be as large as everything else in this process.
    body: Weak<Body>,
}

struct Body {
    bytes: Bytes,
    _place: OwnedSemaphorePermit,
}

/// One reader's share.
struct Reading(Arc<Body>);

impl AsRef<[u8]> for Reading {
    fn as_ref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl LargePage {
    /// `make` may take its time. Every request gets what was begun after it had come, unless too
    /// many still read what was made before.
    pub fn new(make: impl Fn() -> Page + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(make),
            is_current: Box::new(|| false),
            places: Arc::new(Semaphore::new(MAX_BODIES)),
            latest: Arc::default(),
        }
    }

    /// While `is_current` says so, making it again would give the same.
    #[must_use]
    pub fn shared_while(self, is_current: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            is_current: Box::new(is_current),
            ..self
        }
    }

    pub(super) async fn page(self: Arc<Self>) -> Page {
        let asked = Instant::now();
        let mut latest = Arc::clone(&self.latest).lock_owned().await;
        let will_do = |made: &&Made| made.begun >= asked || (self.is_current)();
        if let Some(page) = latest.as_ref().filter(will_do).and_then(Made::shared) {
            return page;
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            // somebody still reads the latest of them
            let latest = latest.as_ref().and_then(Made::shared);
            return latest.unwrap_or_else(|| failed("too many read this page; ask again\n"));
        };
        let begun = Instant::now();
        // with the lock: if whoever asked goes away, the next one waits for it all the same
        let making = spawn_blocking(move || {
            let (made, page) = Made::new(begun, (self.make)(), place);
            *latest = Some(made);
            page
        });
        let made = making.await;
        made.unwrap_or_else(|_| failed("this page could not be made: a bug of mesh-lite\n"))
    }
}

fn failed(text: &str) -> Page {
    Page::text(text.to_owned()).failed()
}

impl Made {
    fn new(begun: Instant, page: Page, place: OwnedSemaphorePermit) -> (Self, Page) {
        let body = Arc::new(Body {
            bytes: page.body,
            _place: place,
        });
        let made = Self {
            begun,
            status: page.status,
            content_type: page.content_type,
            body: Arc::downgrade(&body),
        };
        let page = made.read(body);
        (made, page)
    }

    fn shared(&self) -> Option<Page> {
        self.body.upgrade().map(|body| self.read(body))
    }

    fn read(&self, body: Arc<Body>) -> Page {
        Page {
            status: self.status,
            content_type: self.content_type,
            body: Bytes::from_owner(Reading(body)),
        }
    }
}

#[cfg(test)]
mod tests;
