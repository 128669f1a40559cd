use proptest::prelude::*;

use super::*;

fn header() -> impl Strategy<Value = Header> {
    (1..=u16::MAX, any::<IpAddr>(), "[!-~]{0,64}").prop_map(
        |(port, original_destination, trace_id)| Header {
            port,
            original_destination,
            trace_id: TraceId::new(trace_id.as_bytes()).unwrap(),
        },
    )
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded_and_app_bytes_behind_it_are_left(
        header in header(), app_bytes in proptest::collection::vec(any::<u8>(), 0..40)
    ) {
        let encoded = header.encode();
        prop_assert!(encoded.as_slice().len() <= MAX_HEADER);
        let mut bytes = encoded.as_slice().to_vec();
        bytes.extend_from_slice(&app_bytes);
        prop_assert_eq!(
            Header::decode(&bytes),
            Ok(Some((header, encoded.as_slice().len())))
        );
    }

    #[test]
    fn every_truncation_asks_for_more(header in header()) {
        let encoded = header.encode();
        for length in 0..encoded.as_slice().len() {
            prop_assert_eq!(Header::decode(&encoded.as_slice()[..length]), Ok(None));
        }
    }

    /// DP-B3
    #[test]
    fn a_flipped_bit_never_leaves_magic_flags_family_or_reserved_unnoticed(
        header in header(), bit in 0usize..48
    ) {
        let mut bytes = header.encode().as_slice().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        match Header::decode(&bytes) {
            Err(_) => {}
            // 4 and 6 differ in one bit: the same bytes read as another family
            Ok(_) => prop_assert!(bit / 8 == 4 && [4, 6].contains(&bytes[4])),
        }
    }

    #[test]
    fn arbitrary_bytes_never_take_more_than_is_there(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Some((_, taken))) = Header::decode(&bytes) {
            prop_assert!(taken <= bytes.len() && taken <= MAX_HEADER);
        }
    }
}

#[test]
fn refuses_each_broken_field_by_name() {
    let good = Header {
        port: 8080,
        original_destination: IpAddr::V4(Ipv4Addr::LOCALHOST),
        trace_id: TraceId::new(b"abc").unwrap(),
    };
    let with = |index: usize, value: u8| {
        let mut bytes = good.encode().as_slice().to_vec();
        bytes[index] = value;
        Header::decode(&bytes)
    };
    assert_eq!(with(0, b'm'), Err(InvalidHeader::Magic));
    assert_eq!(with(2, b'2'), Err(InvalidHeader::Magic));
    assert_eq!(with(3, 1), Err(InvalidHeader::Flags(1)));
    assert_eq!(with(4, 5), Err(InvalidHeader::Family(5)));
    assert_eq!(with(5, 1), Err(InvalidHeader::Reserved(1)));
    assert_eq!(with(12, 1), Err(InvalidHeader::TraceIdTooLong(259)));
    assert_eq!(with(14, b'\n'), Err(InvalidHeader::TraceIdNotVisibleAscii));
    let mut port_zero = good.encode().as_slice().to_vec();
    port_zero[6..8].fill(0);
    assert_eq!(Header::decode(&port_zero), Err(InvalidHeader::PortZero));
}

#[test]
fn refuses_a_client_that_does_not_speak_this_protocol_at_its_first_byte() {
    assert_eq!(
        Header::decode(b"GET / HTTP/1.1\r\n"),
        Err(InvalidHeader::Magic)
    );
    assert_eq!(Header::decode(b"S"), Err(InvalidHeader::Magic));
    assert_eq!(Header::decode(b""), Ok(None));
}
