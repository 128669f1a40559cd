//! What refusals mean, which logs and metrics name by one word each, and what to do about them.

/// A refusal in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) what: &'static str,
    pub(super) next: &'static str,
}

/// `None`: it is not one that this version knows.
pub(super) fn in_words(name: &str) -> Option<Words> {
    let (what, next) = at_the_sidecar(name)
        .or_else(|| between_sidecars(name))
        .or_else(|| of_the_destination(name))?;
    Some(Words { what, next })
}

fn at_the_sidecar(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "own_port" => (
            "it was meant for a port of the sidecar itself",
            "dial the application's port; the sidecar's own are 15000, 15001, 15006, 15008, 15020 \
             and 15021",
        ),
        "not_captured" => (
            "the sidecar does not serve that port, or does not know where the connection was going",
            "without capture, name the port by --inbound-ports; with it, look at the sidecar's \
             metric capture_ok",
        ),
        "loop" => (
            "it would have come back to this sidecar",
            "dial the application, and not an address of the sidecar's own listeners",
        ),
        "limit" => (
            "as many connections were open as the sidecar's memory allows",
            "give the sidecar more memory, or let the application close what it does not use",
        ),
        "unauthenticated_limit" => (
            "too many connections that had not proved who they are were waiting, of all or of this \
             address",
            "look what the caller's address opens so many connections for",
        ),
        "not_ready" => (
            "the sidecar had no identity, no policy or no proof of capture yet",
            "look at the page /readyz of the sidecar, at its admin address, what it waits for",
        ),
        "draining" => (
            "the sidecar was about to end",
            "dial again: another endpoint answers",
        ),
        "addresses_exhausted" => (
            "no local port was left to dial from",
            "keep connections open instead of opening new ones, or let more workloads share the \
             calls",
        ),
        _ => return None,
    })
}

fn between_sidecars(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "bad_header" | "header_timeout" => (
            "what came through the tunnel did not begin as a sidecar's connection does, or not in \
             time",
            "see that only sidecars of this mesh dial port 15008",
        ),
        "handshake_failed" | "handshake_timeout" => (
            "the two sides did not agree on a TLS session",
            "see that both sidecars are of this mesh and have certificates: mesh-lite identity",
        ),
        "identity_mismatch" => (
            "who answered did not prove the identity that must answer there",
            "compare the Workload document of that address with who runs there",
        ),
        "evicted" => (
            "the peer, or its certificate, is evicted",
            "if it may come again, remove the Eviction that is named",
        ),
        "untrusted" => (
            "the root by which the peer is proved is not in the trust bundle",
            "see that both sidecars are of this mesh, and how its roots stand: mesh-lite identity",
        ),
        "plaintext_to_strict" => (
            "plaintext came to a port that takes mutual TLS only (STRICT)",
            "put the caller into the mesh, or make the port PERMISSIVE by a PeerAuthentication with \
             portLevelMtls",
        ),
        "denied_by_peer" => (
            "the other side's policy said no",
            "ask the other side's sidecar",
        ),
        "refused_by_peer" => (
            "the other side's sidecar refused it without asking policy",
            "ask the other side's sidecar, whose access log has the reason",
        ),
        _ => return None,
    })
}

fn of_the_destination(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name {
        "unknown_destination" => (
            "nobody is known who must answer there",
            "write a Workload with that address, meshed: false if it has no sidecar, or a Service \
             with that port; what is outside the mesh is named by --external-cidrs of the control \
             plane",
        ),
        "directory_unavailable" => (
            "the sidecar does not know the destination, and could not ask the control plane in time",
            "see that the control plane runs and can be reached",
        ),
        "unmeshed" => (
            "the destination is inside the mesh and has no sidecar, and plaintext to such is refused",
            "put it into the mesh, or start the control plane with --outbound-unmeshed allow, or \
             NAMESPACE=allow",
        ),
        "outside" => (
            "the destination is outside the mesh, and only what is registered may be called",
            "write a Workload with meshed: false for it, or start the control plane with \
             --outbound-policy allow-any",
        ),
        "no_endpoint" => (
            "the service has no endpoint that could be tried",
            "see that a workload of the service runs and is healthy",
        ),
        "connect_failed" | "connect_timeout" => (
            "nobody took the connection there, or not in time",
            "see that the application or the other side's sidecar listens there, and that the \
             network lets it through",
        ),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use mesh_lite_proxy::metrics::{Reason, Refusal};

    use super::*;

    #[test]
    fn every_refusal_of_a_sidecar_has_words_and_a_next_step() {
        for refusal in Refusal::ALL {
            let words = in_words(refusal.as_str());
            assert!(words.is_some(), "{}", refusal.as_str());
        }
        assert_eq!(in_words("no such refusal"), None);
    }
}
