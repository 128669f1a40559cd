//! Random bytes from the system, for serials, nonces and join tokens.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// 127 random bits: SPIFFE-L10 wants 64, RFC 5280 a positive number of at most 20 bytes.
pub(crate) type SerialBytes = [u8; 16];

pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomNumbers> {
    let mut bytes = [0_u8; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| NoRandomNumbers)?;
    Ok(bytes)
}

/// A positive serial number, never zero, always 16 bytes long in DER.
pub(crate) fn serial() -> Result<SerialBytes, NoRandomNumbers> {
    let mut serial: SerialBytes = random_bytes()?;
    if let Some(first) = serial.first_mut() {
        // the top bit is the sign; the next one set keeps the length and excludes zero
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(serial)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomNumbers;
