//! Spreading what many sidecars do, in time and over endpoints, without a source of chance:
//! one pod always gets the same answer, and pods get evenly different ones.

/// Scrambles a number: each bit of the result depends on each bit of `value` (splitmix64).
pub(crate) const fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number for a text (FNV-1a, scrambled). Not for secrets: whoever knows the text knows it.
pub(crate) fn seed_of(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    mix(hash)
}

/// Evenly spread over `[0, 1)`.
pub(crate) fn fraction(value: u64) -> f64 {
    // 53 bits are what an f64 holds exactly
    (mix(value) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_always_gets_the_same_place_and_others_get_other_places() {
        assert_eq!(seed_of("pod-1"), seed_of("pod-1"));
        assert_ne!(seed_of("pod-1"), seed_of("pod-2"));
    }

    #[test]
    fn places_are_spread_evenly() {
        let mut tenths = [0_u32; 10];
        for pod in 0..10_000 {
            let place = fraction(seed_of(&format!("pod-{pod}")));
            assert!((0.0..1.0).contains(&place));
            tenths[(place * 10.0) as usize] += 1;
        }
        assert!(
            tenths.iter().all(|count| (850..1150).contains(count)),
            "{tenths:?}"
        );
    }
}
