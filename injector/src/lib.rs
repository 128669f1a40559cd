//! The injector: AdmissionReview → decision → patch.
//!
//! ```text
//! AdmissionReview ─▶ injection_decision ─▶ Inject ─▶ sidecar_container, probe_rewrite ─▶ pod_patch
//!                                       ├▶ Skip(reason)      stamped, warned, counted
//!                                       └▶ Refuse(reason)    said to whoever made the pod
//! ```

pub mod clock;
pub mod installation;
pub mod probe_rewrite;
mod registration;
mod serving_certificate;
