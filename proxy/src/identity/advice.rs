//! What a person can do about a certificate that does not come.

use super::{
    issuer_client::IssueError,
    token_file::{TokenFile, UnusableToken},
};
use crate::clock::ClockSkew;

const TOKEN: &str = "make a new token with `mesh-lite token create NAMESPACE/NAME`, put it into the file of \
     --join-token-file; the sidecar reads it by itself";
const POD_TOKEN: &str = "look at the projected volume of the pod that the token is in: its audience, and whether the injector made \
     it; the log of the control plane says what the API server said of the token";
const REACH: &str = "check that the control plane runs and can be reached at --control-plane from here; \
     its log and its /readyz say how it is. The sidecar tries again by itself";

impl IssueError {
    /// One sentence. `skew` is the last that was measured; a clock that is far off comes first.
    pub(crate) fn advice(&self, skew: Option<ClockSkew>) -> String {
        let advice = self.advice_but_for_the_clock();
        match skew.filter(ClockSkew::is_notable) {
            Some(skew) => format!("set the clock of this host, {skew}; then {advice}"),
            None => advice.to_owned(),
        }
    }

    fn advice_but_for_the_clock(&self) -> &'static str {
        match self {
            Self::TokenRefused {
                file: TokenFile::ServiceAccount(_),
                ..
            } => POD_TOKEN,
            Self::NoCredential
            | Self::TokenRefused { .. }
            | Self::Token(UnusableToken::Text(_)) => TOKEN,
            Self::Token(UnusableToken::File { .. }) => {
                "make the token's file (--join-token-file, --service-account-token-file) readable for the sidecar's user"
            }
            Self::Timeout { .. } | Self::Unreachable { .. } => REACH,
            Self::Refused { .. } => {
                "the control plane's log says more; check that the Workload document, or the pod, is still there \
                 and that no Eviction names this workload"
            }
            Self::Chain { reason, .. } if reason.is_about_time() => {
                "compare the clocks of this host and of the control plane's"
            }
            Self::Chain { .. } | Self::Tls { .. } => {
                "check that --trust-bundle is the control plane's trust bundle of today"
            }
            Self::TrustBundle(_) => {
                "put the trust bundle (`mesh-lite root init` wrote it) where --trust-bundle says"
            }
            Self::Answer(_) | Self::Key(_) => {
                "report it as a bug, with the logs of this sidecar and of the control plane"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn unreachable() -> IssueError {
        IssueError::Timeout {
            after: Duration::from_secs(10),
        }
    }

    #[test]
    fn a_clock_that_is_far_off_comes_first() {
        let behind = Some(ClockSkew { seconds: -3 * 3600 });
        let advice = unreachable().advice(behind);
        assert!(
            advice.starts_with("set the clock of this host, our clock is 3 h behind"),
            "{advice}"
        );
        assert!(advice.contains("--control-plane"), "{advice}");
    }

    #[test]
    fn a_second_that_rounding_explains_is_not_mentioned() {
        for skew in [None, Some(ClockSkew { seconds: 1 })] {
            assert!(!unreachable().advice(skew).contains("clock"));
        }
    }

    #[test]
    fn a_token_that_is_not_accepted_is_answered_with_how_to_make_one() {
        let refused = IssueError::TokenRefused {
            file: TokenFile::Join("token".into()),
            words: "used".to_owned(),
            clock_skew: None,
        };
        assert!(refused.advice(None).contains("mesh-lite token create"));
    }
}
