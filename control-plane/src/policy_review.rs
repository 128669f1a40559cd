//! Looking at policy before it is in force: what is wrong with documents, what they would do to
//! connections that were recorded, and what policy those connections would need.
//!
//! ```text
//!   files ── documents ──┬─ lint           what is odd about them
//!                        ├─ plan, replay   which recorded connections they would flip
//!   recordings ──────────┼─ suggest        the least policy that lets them through
//!                        └─ strict_ready   who still speaks plaintext
//! ```
//! Everything is decided by [`PolicyIndex`](crate::policy_index::PolicyIndex) and `decide`, as the
//! control plane and the sidecars do; nothing here decides by itself.

pub use self::{
    caveats::Caveat,
    documents::{Documents, PolicyTests, ReadError, ReviewSettings, ReviewedWorkload},
    flips::{Flip, Then},
    lint::{Finding, Oddity},
    plan::{Plan, plan},
    recorded::{
        JudgedBy, Judgement, NamedRecording, NoWorkload, Recorded, by_serial, eviction_of,
        workloads_of,
    },
    replay::{Replay, replay},
    strict_ready::{
        Flaw, Gap, NextStep, PermissiveOnly, Plaintext, StrictReadiness, strict_readiness,
    },
    suggest::{Suggestion, Unsound, suggest, workloads_by_recording},
};

mod caveats;
mod documents;
mod flips;
mod lint;
mod plan;
mod recorded;
mod replay;
mod strict_ready;
mod suggest;

#[cfg(test)]
mod tests;
