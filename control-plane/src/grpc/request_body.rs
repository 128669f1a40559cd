//! How much a client may say in one request or on one stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::watch;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A body with a limit that falls away once the caller has proved itself.
pub(super) struct RequestBody<B> {
    body: B,
    left: usize,
    proved: watch::Receiver<bool>,
}

impl<B> RequestBody<B> {
    pub(super) fn new(body: B, limit: usize, proved: watch::Receiver<bool>) -> Self {
        Self {
            body,
            left: limit,
            proved,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more is sent than a caller may say who has not proved itself")]
struct TooMuch;

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B>
where
    B::Error: Into<Error>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let frame = frame.map_err(Into::into)?;
        if let Some(data) = frame.data_ref()
            && !*this.proved.borrow()
        {
            this.left = this.left.checked_sub(data.len()).ok_or(TooMuch)?;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

    async fn read(limit: usize, proved: bool) -> Result<Bytes, Error> {
        let (_keep, proved) = watch::channel(proved);
        let body = Full::new(Bytes::from_static(b"twelve bytes"));
        Ok(RequestBody::new(body, limit, proved)
            .collect()
            .await?
            .to_bytes())
    }

    #[tokio::test]
    async fn bounds_what_strangers_say_and_nobody_else() {
        assert_eq!(read(12, false).await.unwrap(), "twelve bytes");
        assert!(read(11, false).await.unwrap_err().is::<TooMuch>());
        assert_eq!(read(0, true).await.unwrap(), "twelve bytes");
    }
}
