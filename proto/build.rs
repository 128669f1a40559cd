//! Generates the wire types from `schema/` with a compiler written in Rust, so that nobody
//! needs `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: &[&str] = &[
    "schema/mesh_lite/v1/workload_directory.proto",
    "schema/mesh_lite/v1/authorization_policies.proto",
    "schema/envoy/service/secret/v3/sds.proto",
    "schema/envoy/service/discovery/v3/ads.proto",
    "schema/envoy/extensions/transport_sockets/tls/v3/secret.proto",
];

/// Shown by hand, without the private key that may be in them.
const MAY_HOLD_A_KEY: &[&str] = &[
    ".envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
    ".envoy.service.discovery.v3.DiscoveryResponse",
    ".envoy.service.discovery.v3.Resource",
];

/// What a sidecar shows of its policy, and tools read back, as JSON of the message itself.
const SHOWN_AS_JSON: &[&str] = &[
    "PolicySnapshot",
    "MutualTls",
    "SourceRef",
    "AuthorizationPolicy",
    "Rule",
    "PeerMatch",
    "OperationMatch",
    "Eviction",
    "BrokenDocument",
];

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script its directory so"
)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let descriptors = protox::compile(FILES, ["schema"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut builder = tonic_prost_build::configure()
        .build_transport(true)
        .skip_debug(MAY_HOLD_A_KEY);
    for message in SHOWN_AS_JSON {
        let path = format!(".mesh_lite.v1.{message}");
        builder = builder
            .type_attribute(&path, "#[derive(serde::Serialize, serde::Deserialize)]")
            // one that this build does not know would be dropped, and with it what it narrows
            .type_attribute(&path, "#[serde(deny_unknown_fields)]");
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
