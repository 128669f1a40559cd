use rustix::net::netlink::{SOCK_DIAG, USERSOCK};

use super::*;

const KIND: u16 = 20;
const MULTI: u16 = 2;

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(MULTI.to_ne_bytes());
    bytes.extend(SEQUENCE.to_ne_bytes());
    bytes.extend([7; 4]);
    bytes.extend(body);
    bytes
}

fn code(kind: u16, code: i32) -> Vec<u8> {
    message(kind, &code.to_ne_bytes())
}

/// What a list's bodies are, and whether it is at its end.
fn listed(datagram: &[u8]) -> Result<(Vec<Vec<u8>>, bool), NetlinkError> {
    let mut bodies = Vec::new();
    let end = Answer::listed(|message: Message<'_>| {
        bodies.push(message.body.to_vec());
        (message.kind == KIND).then_some(())
    })
    .read(datagram)?;
    Ok((bodies, end.is_break()))
}

fn is_garbled<T>(answer: &Result<T, NetlinkError>) -> bool {
    matches!(answer, Err(NetlinkError::Garbled(_)))
}

#[test]
fn a_question_has_its_length_kind_flags_and_number() {
    let question = Question {
        protocol: SOCK_DIAG,
        kind: KIND,
        body: &[9; 5],
    };
    let bytes = request(question, NLM_F_DUMP);
    assert_eq!(bytes.len(), 21);
    assert_eq!(bytes[..4], 21_u32.to_ne_bytes());
    assert_eq!(bytes[4..6], 20_u16.to_ne_bytes());
    assert_eq!(bytes[6..8], 0x301_u16.to_ne_bytes());
    assert_eq!(bytes[8..12], 1_u32.to_ne_bytes());
    assert_eq!(bytes[12..16], [0; 4]);
    assert_eq!(bytes[16..], [9; 5]);
}

#[test]
fn messages_are_given_until_the_list_is_done() {
    let mut datagram = message(KIND, &[1; 8]);
    datagram.extend(message(KIND, &[2; 4]));
    let (bodies, end) = listed(&datagram).unwrap();
    assert_eq!(bodies, [vec![1; 8], vec![2; 4]]);
    assert!(!end);
    datagram.extend(code(NLMSG_DONE, 0));
    let (bodies, end) = listed(&datagram).unwrap();
    assert_eq!(bodies.len(), 2);
    assert!(end);
}

#[test]
fn a_message_is_filled_up_to_where_the_next_begins() {
    let mut datagram = message(KIND, &[1; 5]);
    datagram.extend([0; 3]);
    datagram.extend(message(KIND, &[2; 5]));
    let (bodies, _) = listed(&datagram).unwrap();
    assert_eq!(bodies, [[1; 5], [2; 5]]);
}

#[test]
fn a_datagram_cut_within_a_message_is_not_understood() {
    let first = message(KIND, &[1; 8]);
    let mut datagram = first.clone();
    datagram.extend(code(NLMSG_DONE, 0));
    assert!(listed(&datagram).unwrap().1);
    for length in (0..datagram.len()).filter(|length| *length != first.len()) {
        let answer = listed(&datagram[..length]);
        assert!(is_garbled(&answer), "{length}: {answer:?}");
    }
}

#[test]
fn a_length_that_lies_is_not_understood() {
    for length in [
        0,
        1,
        15,
        17 + 8,
        1000,
        i32::MAX as u32,
        u32::MAX - 2,
        u32::MAX,
    ] {
        let mut datagram = message(KIND, &[1; 8]);
        datagram[..4].copy_from_slice(&length.to_ne_bytes());
        let answer = listed(&datagram);
        assert!(is_garbled(&answer), "{length}: {answer:?}");
    }
}

#[test]
fn a_length_too_short_by_some_bytes_leaves_bytes_that_are_not_understood() {
    let mut datagram = message(KIND, &[1; 8]);
    datagram[..4].copy_from_slice(&20_u32.to_ne_bytes());
    assert!(is_garbled(&listed(&datagram)));
}

#[test]
fn a_message_that_is_not_understood_spoils_the_list() {
    let mut datagram = message(KIND, &[1; 8]);
    datagram.extend(message(KIND + 1, &[2; 8]));
    datagram.extend(code(NLMSG_DONE, 0));
    assert!(is_garbled(&listed(&datagram)));
}

#[test]
fn netlinks_own_messages_are_no_part_of_a_list() {
    for kind in (0..NLMSG_MIN_TYPE).filter(|kind| ![NLMSG_ERROR, NLMSG_DONE].contains(kind)) {
        let mut datagram = message(kind, &[0; 4]);
        datagram.extend(code(NLMSG_DONE, 0));
        assert!(is_garbled(&listed(&datagram)), "{kind}");
    }
}

#[test]
fn an_answer_to_another_question_is_not_understood() {
    let mut datagram = code(NLMSG_DONE, 0);
    datagram[8..12].copy_from_slice(&2_u32.to_ne_bytes());
    assert!(is_garbled(&listed(&datagram)));
}

#[test]
fn a_list_that_changed_meanwhile_is_no_list() {
    let mut datagram = code(NLMSG_DONE, 0);
    datagram[6..8].copy_from_slice(&(MULTI | NLM_F_DUMP_INTR).to_ne_bytes());
    assert!(matches!(listed(&datagram), Err(NetlinkError::Changed)));
}

#[test]
fn a_refusal_carries_the_kernels_reason() {
    for kind in [NLMSG_ERROR, NLMSG_DONE] {
        let refused = listed(&code(kind, -1)).unwrap_err();
        assert!(
            matches!(&refused, NetlinkError::Refused(reason) if reason.raw_os_error() == Some(1)),
            "{refused:?}"
        );
    }
    let refused = Answer::acknowledged().read(&code(NLMSG_ERROR, i32::MIN));
    assert!(matches!(refused, Err(NetlinkError::Refused(_))));
}

#[test]
fn an_end_without_a_code_or_with_more_behind_it_is_not_understood() {
    assert!(is_garbled(&listed(&message(NLMSG_DONE, &[]))));
    assert!(is_garbled(&listed(&message(NLMSG_DONE, &[0; 3]))));
    assert!(is_garbled(&listed(&code(NLMSG_DONE, 7))));
    let mut datagram = code(NLMSG_DONE, 0);
    datagram.extend(message(KIND, &[1; 8]));
    assert!(is_garbled(&listed(&datagram)));
}

#[test]
fn a_list_does_not_end_with_an_acknowledgement_nor_a_command_with_a_list() {
    assert!(is_garbled(&listed(&code(NLMSG_ERROR, 0))));
    let command = |datagram: &[u8]| Answer::acknowledged().read(datagram);
    assert!(command(&code(NLMSG_ERROR, 0)).unwrap().is_break());
    assert!(is_garbled(&command(&code(NLMSG_DONE, 0))));
    assert!(is_garbled(&command(&code(NLMSG_ERROR, 7))));
    assert!(is_garbled(&command(&message(KIND, &[1; 8]))));
    assert!(is_garbled(&command(&[])));
}

#[test]
fn an_endless_list_is_cut_and_nothing_is_concluded() {
    let datagram = message(KIND, &[0; 16 * 1024]);
    let mut answer = Answer::listed(|_: Message<'_>| Some(()));
    let cut = std::iter::repeat_with(|| answer.read(&datagram))
        .take(MAX_ANSWER / datagram.len() + 1)
        .find_map(Result::err);
    assert!(matches!(cut, Some(NetlinkError::TooLong)), "{cut:?}");
}

#[test]
fn of_what_is_not_understood_no_more_than_a_line_is_kept() {
    let long = message(NLMSG_MIN_TYPE - 1, &[0; 4096]);
    assert!(matches!(listed(&long), Err(NetlinkError::Garbled(kept)) if kept.len() == QUOTED));
}

#[test]
fn the_kernel_refuses_a_kind_it_does_not_know() {
    let question = Question {
        protocol: SOCK_DIAG,
        kind: u16::MAX,
        body: &[0; 56],
    };
    let refused = dump(question, |_| Some(())).unwrap_err();
    assert!(
        matches!(&refused, NetlinkError::Refused(reason) if reason.raw_os_error() == Some(22)),
        "{refused:?}"
    );
}

#[test]
fn a_kernel_without_a_family_is_told_from_one_that_fails() {
    // No such address family, so nobody behind it: as where the module is not there.
    let mut body = [0; 56];
    body[0] = 39;
    let question = Question {
        protocol: SOCK_DIAG,
        kind: KIND,
        body: &body,
    };
    let absent = dump(question, |_| Some(())).unwrap_err();
    assert!(absent.is_unsupported(), "{absent:?}");
    // Nobody listens on this protocol, which is another matter.
    let protocol = USERSOCK;
    let failed = dump(
        Question {
            protocol,
            ..question
        },
        |_| Some(()),
    )
    .unwrap_err();
    assert!(!failed.is_unsupported(), "{failed:?}");
}
