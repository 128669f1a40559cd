//! What operators, probes and Prometheus read. Everything here only reads.
//!
//! | port | address | paths |
//! |---|---|---|
//! | 15021 | the pod's | `/healthz`, `/readyz` |
//! | 15020 | the pod's | `/metrics` |
//! | 15000 | loopback, nothing else | `/` (this table), `/identity`, `/policy`, `/policy/snapshot`, `/decisions`, `/connections`, `/control-plane`, `/readyz`, `/metrics` |
//!
//! Pages are closures, so that this file knows HTTP and nothing of what is shown.

use std::{collections::BTreeMap, fmt, fmt::Write as _, sync::Arc};

use serde::Serialize;

mod server;

pub use server::{AdminServer, BindError};

/// What a page answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    ok: bool,
    content_type: &'static str,
    body: String,
}

impl Page {
    pub fn text(body: String) -> Self {
        Self {
            ok: true,
            content_type: "text/plain; charset=utf-8",
            body,
        }
    }

    /// As JSON, indented. What can't be written as JSON becomes an error page.
    pub fn json(value: &impl Serialize) -> Self {
        match serde_json::to_string_pretty(value) {
            Ok(body) => Self {
                ok: true,
                content_type: "application/json",
                body: body + "\n",
            },
            Err(error) => Self::text(format!("this can't be shown as JSON: {error}\n")).failed(),
        }
    }

    /// As JSON, one value a line.
    pub fn json_lines(body: String) -> Self {
        Self {
            ok: true,
            content_type: "application/x-ndjson",
            body,
        }
    }

    pub fn metrics(body: String) -> Self {
        Self {
            ok: true,
            content_type: crate::metrics::CONTENT_TYPE,
            body,
        }
    }

    /// The same, with status 503.
    #[must_use]
    pub fn failed(self) -> Self {
        Self { ok: false, ..self }
    }
}

/// The pages of one server, by path. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pages(Arc<BTreeMap<&'static str, Entry>>);

#[derive(Clone)]
struct Entry {
    about: &'static str,
    page: Arc<dyn Fn() -> Page + Send + Sync>,
}

impl Pages {
    /// Adds a page. `page` must be quick: it runs on the thread that also answers probes.
    #[must_use]
    pub fn with(
        mut self,
        path: &'static str,
        about: &'static str,
        page: impl Fn() -> Page + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.0).insert(
            path,
            Entry {
                about,
                page: Arc::new(page),
            },
        );
        self
    }

    /// Adds `/`, a table of the other pages.
    #[must_use]
    pub fn with_contents(self) -> Self {
        let mut table = "mesh-lite sidecar: everything here only reads.\n\n".to_owned();
        for (path, entry) in self.0.iter() {
            // a `String` takes whatever is written to it
            let _ = writeln!(table, "{path:<16} {}", entry.about);
        }
        self.with("/", "this table", move || Page::text(table.clone()))
    }

    fn at(&self, path: &str) -> Option<Page> {
        self.0.get(path).map(|entry| (entry.page)())
    }
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// `/healthz` and `/readyz`, as kubelets and load balancers ask for them.
pub fn health_pages(readiness: &crate::readiness::Readiness) -> Pages {
    Pages::default()
        .with("/healthz", "alive", || Page::text("ok\n".to_owned()))
        .with("/readyz", READYZ, readyz(readiness))
}

const READYZ: &str = "whether this workload may be sent traffic, and if not, why";

/// The page `/readyz`.
pub fn readyz(readiness: &crate::readiness::Readiness) -> impl Fn() -> Page + Send + Sync + use<> {
    let readiness = readiness.clone();
    move || {
        let page = Page::text(readiness.describe());
        if readiness.is_ready() {
            page
        } else {
            page.failed()
        }
    }
}

#[cfg(test)]
mod tests;
