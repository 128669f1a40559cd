//! What operators, probes and Prometheus read. Everything here only reads.
//!
//! | port | address | paths |
//! |---|---|---|
//! | 15021 | the pod's | `/healthz`, `/readyz`, `/app-probes/…` |
//! | 15020 | the pod's | `/metrics` |
//! | 15000 | loopback, nothing else | `/` (this table), `/identity`, `/policy`, `/policy/snapshot`, `/decisions`, `/connections`, `/control-plane`, `/readyz`, `/metrics` |
//!
//! Pages are closures, so that this file knows HTTP and nothing of what is shown.

use std::{collections::BTreeMap, fmt, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

mod large_page;
mod server;

pub use large_page::LargePage;
pub use server::{AdminServer, BindError};

/// What a page answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Page {
    pub fn text(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    /// As JSON, indented. What can't be written as JSON becomes an error page.
    pub fn json(value: &impl Serialize) -> Self {
        Self::of_json(serde_json::to_string_pretty(value))
    }

    /// As JSON in one line, for tools.
    pub fn json_line(value: &impl Serialize) -> Self {
        Self::of_json(serde_json::to_string(value))
    }

    fn of_json(written: serde_json::Result<String>) -> Self {
        match written {
            Ok(body) => Self {
                status: StatusCode::OK,
                content_type: "application/json",
                body: (body + "\n").into(),
            },
            Err(error) => Self::text(format!("this can't be shown as JSON: {error}\n")).failed(),
        }
    }

    /// As JSON, one value a line.
    pub fn json_lines(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/x-ndjson",
            body: body.into(),
        }
    }

    pub fn metrics(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: crate::metrics::CONTENT_TYPE,
            body: body.into(),
        }
    }

    /// The same, with status 503.
    #[must_use]
    pub fn failed(self) -> Self {
        self.with_status(StatusCode::SERVICE_UNAVAILABLE)
    }

    #[must_use]
    pub fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

/// The pages of one server, by path. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pages(Arc<BTreeMap<&'static str, Entry>>);

#[derive(Clone)]
struct Entry {
    about: &'static str,
    page: Source,
}

#[derive(Clone)]
enum Source {
    Quick(Arc<dyn Fn() -> Page + Send + Sync>),
    Large(Arc<LargePage>),
}

impl Pages {
    /// Adds a page. `page` must be quick: it runs on the thread that also answers probes.
    #[must_use]
    pub fn with(
        self,
        path: &'static str,
        about: &'static str,
        page: impl Fn() -> Page + Send + Sync + 'static,
    ) -> Self {
        self.adding(path, about, Source::Quick(Arc::new(page)))
    }

    /// Adds a page that takes time or memory.
    #[must_use]
    pub fn with_large(self, path: &'static str, about: &'static str, page: LargePage) -> Self {
        self.adding(path, about, Source::Large(Arc::new(page)))
    }

    fn adding(mut self, path: &'static str, about: &'static str, page: Source) -> Self {
        Arc::make_mut(&mut self.0).insert(path, Entry { about, page });
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

    async fn at(&self, path: &str) -> Option<Page> {
        Some(match &self.0.get(path)?.page {
            Source::Quick(page) => page(),
            Source::Large(page) => Arc::clone(page).page().await,
        })
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
