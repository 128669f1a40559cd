//! Where documents come from.

pub(crate) mod directory_of_files;
pub(crate) mod workload_document;
