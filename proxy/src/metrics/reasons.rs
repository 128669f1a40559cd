//! What the label values of the metrics may be: closed sets, so that no peer can add to them.

use std::io;

use rustix::io::Errno;

/// A closed set of label values.
pub trait Reason: Copy + 'static {
    const ALL: &'static [Self];
    fn as_str(self) -> &'static str;
    /// Position in [`Self::ALL`].
    fn index(self) -> usize;
}

macro_rules! reasons {
    ($($(#[$of_all:meta])* $name:ident { $($(#[$of_one:meta])* $variant:ident => $text:literal,)+ })+) => {$(
        $(#[$of_all])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name { $($(#[$of_one])* $variant,)+ }

        impl $name {
            /// As it stands in metrics and in the access log.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl Reason for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

reasons! {
    /// Why a connection was refused before, or without, a policy's denial.
    Refusal {
        /// It was meant for a port of the sidecar itself.
        OwnPort => "own_port",
        /// The kernel knows no original destination, or the port is not one to be served.
        NotCaptured => "not_captured",
        /// It would have come back to this sidecar.
        Loop => "loop",
        /// As many connections are open as memory allows.
        Limit => "limit",
        /// One source has as many unauthenticated connections as it may have.
        UnauthenticatedLimit => "unauthenticated_limit",
        /// No identity, policy or proof of capture yet.
        NotReady => "not_ready",
        /// The tunnel's header is not one.
        BadHeader => "bad_header",
        HeaderTimeout => "header_timeout",
        HandshakeFailed => "handshake_failed",
        HandshakeTimeout => "handshake_timeout",
        /// The other side did not prove the one identity that must answer there.
        IdentityMismatch => "identity_mismatch",
        /// The caller, or its certificate, was evicted.
        Evicted => "evicted",
        /// The trust bundle does not hold the root the peer was proved by.
        Untrusted => "untrusted",
        /// Plaintext came to a port where only mutual TLS is accepted.
        PlaintextToStrict => "plaintext_to_strict",
        /// The directory does not know who must answer there.
        UnknownDestination => "unknown_destination",
        /// The directory could not be asked in time.
        DirectoryUnavailable => "directory_unavailable",
        /// Inside the mesh's addresses, but without a sidecar, and `outboundUnmeshed` is refuse.
        Unmeshed => "unmeshed",
        /// Outside the mesh, and `outboundPolicy` is registry-only.
        Outside => "outside",
        /// The service has no endpoint that could be tried.
        NoEndpoint => "no_endpoint",
        ConnectFailed => "connect_failed",
        ConnectTimeout => "connect_timeout",
        /// No local port was left to dial from.
        AddressesExhausted => "addresses_exhausted",
        /// The other sidecar's policy said no.
        DeniedByPeer => "denied_by_peer",
        /// The other sidecar refused, without a policy's decision.
        RefusedByPeer => "refused_by_peer",
        /// This sidecar is about to end.
        Draining => "draining",
    }

    /// Why plaintext was let through.
    Plaintext {
        /// Came in while PeerAuthentication says PERMISSIVE.
        InboundPermissive => "inbound_permissive",
        /// Went to a workload of the mesh's addresses that has no sidecar.
        OutboundUnmeshed => "outbound_unmeshed",
        /// Went outside the mesh.
        OutboundOutside => "outbound_outside",
        /// Went to the Kubernetes API server.
        OutboundKubernetes => "outbound_kubernetes",
        /// Went to port 53.
        OutboundDns => "outbound_dns",
    }

    /// Why a connection that had been allowed was cut.
    Termination {
        /// A later policy snapshot denies it.
        PolicyChanged => "policy_changed",
        /// Its peer was evicted.
        Evicted => "evicted",
        /// The root its peer was proved by left the trust bundle.
        TrustChanged => "trust_changed",
    }

    CertificateKind {
        Leaf => "leaf",
        IssuingCa => "issuing_ca",
        Root => "root",
    }

    Renewal {
        Issued => "issued",
        /// The control plane could not be reached.
        Unreachable => "unreachable",
        /// The control plane said no.
        Refused => "refused",
        /// What it answered could not be used.
        Invalid => "invalid",
    }

    /// What will stop working, if nothing is done.
    BreakageCause {
        /// The workload's own certificate ends, and the last attempt to renew it failed.
        Leaf => "leaf",
        /// The issuing CA ends, and with it every leaf.
        IssuingCa => "issuing_ca",
        /// The last root of the trust bundle ends.
        TrustBundle => "trust_bundle",
    }

    /// Why somebody was refused at the workload socket.
    SocketRefusal {
        /// Of a user that may not have this workload's key.
        User => "user",
        /// As many connections are open as may be.
        Connections => "connections",
        /// As many streams are open as may be.
        Streams => "streams",
    }

    /// What became of secrets that were asked for at the workload socket.
    LocalSecret {
        Accepted => "accepted",
        /// The client could not use it and keeps what it had.
        Rejected => "rejected",
        /// There was nothing of that name when it was asked for.
        Unknown => "unknown",
    }

    AcceptError {
        /// The peer was gone before it was accepted.
        Aborted => "aborted",
        ProcessFiles => "process_files",
        SystemFiles => "system_files",
        Memory => "memory",
        Other => "other",
    }
}

impl From<&io::Error> for AcceptError {
    fn from(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::CONNABORTED | Errno::CONNRESET) => Self::Aborted,
            Some(Errno::MFILE) => Self::ProcessFiles,
            Some(Errno::NFILE) => Self::SystemFiles,
            Some(Errno::NOMEM | Errno::NOBUFS) => Self::Memory,
            _ => Self::Other,
        }
    }
}
