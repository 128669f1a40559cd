//! From identities to TLS material, in one send.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    control::ControlHandles,
    readiness::{Part, Readiness},
    tls::context::TlsContext,
};

/// `None` whenever there is no certificate that may be used.
pub(super) fn spawn(
    handles: &ControlHandles,
    readiness: &Readiness,
) -> watch::Receiver<Option<Arc<TlsContext>>> {
    let (sender, receiver) = watch::channel(None);
    let mut identities = handles.identity.clone();
    let mut status = handles.status.clone();
    let guard = readiness.block(Part::Svid);
    tokio::spawn(async move {
        let mut before: Option<Arc<TlsContext>> = None;
        loop {
            let identity = identities.borrow_and_update().clone();
            match identity {
                None => {
                    sender.send_replace(None);
                    let error = status.borrow_and_update().issuing.error.clone();
                    if let Some(error) = error {
                        guard.not_ready(error);
                    } else if before.is_some() {
                        guard.not_ready("the certificate has ended and none has come since");
                    }
                }
                Some(identity) => match TlsContext::build(identity, before.as_deref()) {
                    Ok(context) => {
                        let context = Arc::new(context);
                        sender.send_replace(Some(Arc::clone(&context)));
                        before = Some(context);
                        guard.ready();
                    }
                    // the last good one stays
                    Err(error) => {
                        tracing::error!(%error, "an identity came that can't be used");
                        if before.is_none() {
                            guard.not_ready(error.to_string());
                        }
                    }
                },
            }
            tokio::select! {
                changed = identities.changed() => if changed.is_err() { return },
                changed = status.changed(), if before.is_none() => if changed.is_err() { return },
            }
        }
    });
    receiver
}
