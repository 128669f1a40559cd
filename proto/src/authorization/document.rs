//! Reads `AuthorizationPolicy`, `PeerAuthentication` and `Eviction` documents.
