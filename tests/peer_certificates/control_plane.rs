//! A real control plane, and callers that show it certificates.

use std::fs;
use std::io::{self, Read, Write};

use mesh_lite_test_support::LoopbackMesh;
use mesh_lite_test_support::certificates::{Authority, Credential};
use mesh_lite_test_support::credulous_tls::{TlsClient, client_config};
use mesh_lite_test_support::loopback_mesh::WEB_ONLY;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
/// The length of an HTTP/2 frame's head (RFC 9113 §4.1).
const FRAME_HEAD: usize = 9;

pub(crate) struct ControlPlane(LoopbackMesh);

impl ControlPlane {
    /// With another root in its trust bundle than its own.
    pub(crate) fn trusting(root: &Authority) -> Self {
        let mut mesh = LoopbackMesh::prepare(PROGRAM, 8080, WEB_ONLY, &[]);
        let path = mesh.state().join("trust-bundle.pem");
        let own = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{own}{}", root.pem)).unwrap();
        mesh.start_control_plane();
        Self(mesh)
    }

    /// Whether it speaks HTTP/2 with a caller that shows `credential`. A caller that shows none
    /// is served too: it may have a join token.
    pub(crate) fn serves(&self, credential: &Credential) -> bool {
        let answer = self.first_frame(credential);
        match &answer {
            Ok(head) => {
                const SETTINGS: u8 = 4;
                assert_eq!(head[3], SETTINGS, "{head:?}");
                true
            }
            Err(error) => {
                let silent = matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                );
                assert!(!silent, "neither served nor refused: {error}");
                false
            }
        }
    }

    fn first_frame(&self, credential: &Credential) -> io::Result<[u8; FRAME_HEAD]> {
        let config = client_config(Some(credential), &["h2"]);
        let mut client = TlsClient::connect(self.0.control_plane_address(), &config)?;
        let stream = client.stream();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
        stream.flush()?;
        let mut head = [0; FRAME_HEAD];
        stream.read_exact(&mut head)?;
        Ok(head)
    }
}
