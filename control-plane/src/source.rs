//! Where documents come from.

pub(crate) mod claimable_addresses;
pub(crate) mod directory_of_files;
pub(crate) mod kubernetes;
pub(crate) mod not_mesh_wide;
pub(crate) mod workload_document;
