//! A request's body, bounded by itself and together with all others.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};

/// The API server takes objects of 3 MiB at most, and a review of a creation has one.
pub(super) const MAX_BODY: usize = 4 * 1024 * 1024;
/// Bytes of all bodies that are held at one time. Thousands of the usual ones (2 to 8 KB) and a few
/// of the longest; what it takes to judge one comes on top, for as many as there are threads.
const MAX_HELD: usize = 32 * 1024 * 1024;

/// What all bodies share.
pub(super) struct BodyRoom(Semaphore);

/// A body and its share of what all may hold.
pub(super) struct Body<'a> {
    pub(super) bytes: Bytes,
    _held: SemaphorePermit<'a>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the request is longer than {MAX_BODY} bytes")]
    TooLong,
    #[error("the request ended before its end")]
    Cut,
}

impl BodyRoom {
    pub(super) fn new() -> Self {
        Self(Semaphore::new(MAX_HELD))
    }

    /// Takes room as bytes arrive, and waits for it: what is only announced holds nothing.
    pub(super) async fn read(&self, mut incoming: Incoming) -> Result<Body<'_>, BodyError> {
        let mut held = self.room(0).await?;
        let mut bytes = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|_| BodyError::Cut)?.into_data() else {
                continue;
            };
            if bytes.len().saturating_add(data.len()) > MAX_BODY {
                return Err(BodyError::TooLong);
            }
            held.merge(self.room(data.len()).await?);
            bytes.extend_from_slice(&data);
        }
        Ok(Body {
            bytes: bytes.freeze(),
            _held: held,
        })
    }

    async fn room(&self, bytes: usize) -> Result<SemaphorePermit<'_>, BodyError> {
        let bytes = u32::try_from(bytes).map_err(|_| BodyError::TooLong)?;
        self.0.acquire_many(bytes).await.map_err(|_| BodyError::Cut)
    }
}
