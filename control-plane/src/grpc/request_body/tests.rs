use http_body_util::{BodyExt, Full, StreamBody};
use tokio_stream::StreamExt as _;
use tonic::Code;

use super::{super::byte_budget::ByteBudget, *};

const MESSAGE: &[u8] = b"\0\0\0\0\x07seven b";

fn budget() -> ByteBudget {
    ByteBudget::new(MAX_GRPC_MESSAGE)
}

async fn read(limit: usize, proved: bool, message: &'static [u8]) -> Result<Bytes, Error> {
    let standing = if proved {
        Standing::Peer
    } else {
        Standing::Unproved
    };
    let (_keep, proved) = watch::channel(standing);
    let body = Full::new(Bytes::from_static(message));
    let body = RequestBody::new(body, limit, proved, budget().begin().unwrap());
    Ok(body.collect().await?.to_bytes())
}

fn code(error: &Error) -> Code {
    error.downcast_ref::<Status>().unwrap().code()
}

#[tokio::test]
async fn bounds_what_strangers_say_and_nobody_else() {
    assert_eq!(read(12, false, MESSAGE).await.unwrap(), MESSAGE);
    let refused = read(11, false, MESSAGE).await.unwrap_err();
    assert_eq!(code(&refused), Code::ResourceExhausted);
    assert_eq!(read(0, true, MESSAGE).await.unwrap(), MESSAGE);
}

/// The head alone takes the room: whoever reads makes it when it has seen the head.
#[tokio::test]
async fn bounds_what_is_announced_over_all_streams() {
    let budget = budget();
    let (_keep, proved) = watch::channel(Standing::Peer);
    let announce = || {
        let head = Full::new(Bytes::from_static(b"\0\0\x0c\0\0"));
        RequestBody::new(head, 0, proved.clone(), budget.begin().unwrap())
    };
    let (mut one, mut other) = (announce(), announce());
    assert!(one.frame().await.unwrap().is_ok());
    let refused = other.frame().await.unwrap().unwrap_err();
    assert_eq!(code(&refused), Code::ResourceExhausted);
    drop((one, other));
    assert!(announce().frame().await.unwrap().is_ok());
}

/// However often a byte comes; and silence between messages is nobody's fault.
#[tokio::test(start_paused = true)]
async fn a_message_has_ten_seconds_and_silence_has_none() {
    let (_keep, proved) = watch::channel(Standing::Peer);
    let drops = tokio_stream::iter(MESSAGE.chunks(1)).throttle(Duration::from_secs(3));
    let pieces = tokio_stream::iter([MESSAGE, MESSAGE])
        .throttle(Duration::from_secs(100))
        .chain(drops)
        .map(|piece| Ok::<_, Error>(Frame::data(Bytes::from_static(piece))));
    let mut body = RequestBody::new(
        StreamBody::new(Box::pin(pieces)),
        0,
        proved,
        budget().begin().unwrap(),
    );
    for _ in 0..3 {
        assert!(body.frame().await.unwrap().is_ok());
    }
    let began = Instant::now();
    let refused = loop {
        if let Err(error) = body.frame().await.unwrap() {
            break error;
        }
    };
    assert_eq!(code(&refused), Code::DeadlineExceeded);
    assert_eq!(began.elapsed(), MESSAGE_DEADLINE);
}
