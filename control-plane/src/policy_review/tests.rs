//! What tests of all these have in common.

pub(super) mod made_up;
