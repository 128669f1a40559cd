//! The tunnel header: the first bytes that a peer sends inside TLS.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_lite_proto::tunnel::{Header, MAX_HEADER};

fuzz_target!(|bytes: &[u8]| {
    match Header::decode(bytes) {
        Ok(Some((header, taken))) => {
            assert!(taken <= MAX_HEADER && taken <= bytes.len());
            assert_ne!(header.port, 0);
            let encoded = header.encode();
            assert_eq!(encoded.as_slice(), &bytes[..taken], "one header has one wire form");
            // what follows belongs to the application and changes nothing
            assert_eq!(Header::decode(&bytes[..taken]), Ok(Some((header, taken))));
            // no part of it is a header, and no part of it is refused
            for cut in 0..taken {
                assert_eq!(Header::decode(&bytes[..cut]), Ok(None), "cut at {cut}");
            }
        }
        Ok(None) => {
            assert!(bytes.len() < MAX_HEADER, "a reader waits for no more than a header");
        }
        // what was refused stays refused, whatever comes behind it
        Err(_) => {
            let mut more = bytes.to_vec();
            more.extend_from_slice(&[0; MAX_HEADER]);
            assert!(Header::decode(&more).is_err());
        }
    }
});
