//! The frames that a server sent, in their order.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

/// Everything that was read from a connection.
#[derive(Clone, Default)]
pub(super) struct Tapped(Arc<Mutex<Vec<u8>>>);

/// The head of an HTTP/2 frame (RFC 9113 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Tapped {
    pub(super) fn tap(&self, stream: DuplexStream) -> Tap {
        Tap {
            stream,
            tapped: self.clone(),
        }
    }

    pub(super) fn frames(&self) -> Vec<Frame> {
        let bytes = self.0.lock().unwrap();
        let mut frames = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((head, after)) = rest.split_first_chunk::<9>() {
            let [a, b, c, kind, flags, stream @ ..] = *head;
            frames.push(Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream),
            });
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            rest = after.get(length..).unwrap_or_default();
        }
        frames
    }
}

pub(super) struct Tap {
    stream: DuplexStream,
    tapped: Tapped,
}

impl AsyncRead for Tap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let mut tapped = self.tapped.0.lock().unwrap();
        tapped.extend_from_slice(&buffer.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
