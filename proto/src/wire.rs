//! Generated messages and services. Conversions to the domain's types live beside those types;
//! nothing else names these.
#![allow(
    unused_qualifications,
    unnameable_types,
    clippy::all,
    clippy::use_self,
    clippy::or_fun_call,
    clippy::allow_attributes_without_reason,
    reason = "generated code is not ours to style"
)]

/// What reflection serves: descriptors of every message and service here.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

pub mod mesh_lite {
    pub mod v1 {
        tonic::include_proto!("mesh_lite.v1");
    }
}

pub mod envoy {
    pub mod config {
        pub mod core {
            pub mod v3 {
                tonic::include_proto!("envoy.config.core.v3");
            }
        }
    }
    pub mod extensions {
        pub mod transport_sockets {
            pub mod tls {
                pub mod v3 {
                    tonic::include_proto!("envoy.extensions.transport_sockets.tls.v3");
                }
            }
        }
    }
    pub mod service {
        pub mod discovery {
            pub mod v3 {
                tonic::include_proto!("envoy.service.discovery.v3");
            }
        }
        pub mod secret {
            pub mod v3 {
                tonic::include_proto!("envoy.service.secret.v3");
            }
        }
    }
}

pub mod google {
    pub mod rpc {
        tonic::include_proto!("google.rpc");
    }
}
