use std::time::Duration;

use tokio::time;

use super::*;

/// Ten times what any wait here should take at most.
const DEADLINE: Duration = Duration::from_secs(10);

/// Says every number that it was told, while it has the right to.
struct Scripted {
    owed: Vec<u32>,
    right: watch::Receiver<bool>,
}

impl Scripted {
    fn new() -> (watch::Sender<bool>, Self) {
        let (right, seen) = watch::channel(true);
        let owed = Vec::new();
        (right, Self { owed, right: seen })
    }
}

impl Conversation for Scripted {
    type Request = u32;
    type Response = u32;

    fn receive(&mut self, request: u32) -> Result<(), Status> {
        self.owed.insert(0, request);
        Ok(())
    }

    fn check(&mut self) -> Result<(), Status> {
        match *self.right.borrow() {
            true => Ok(()),
            false => Err(Status::permission_denied("evicted")),
        }
    }

    fn owed(&mut self) -> Result<Option<u32>, Status> {
        Ok(self.owed.pop())
    }

    async fn changed(&mut self) {
        wait_for_change(&mut self.right).await;
    }
}

fn asking(numbers: &[u32]) -> impl Stream<Item = Result<u32, Status>> + Unpin + Send + use<> {
    let asked: Vec<_> = numbers.iter().copied().map(Ok).collect();
    tokio_stream::iter(asked)
}

#[tokio::test]
async fn answers_all_that_was_asked_by_a_client_that_ended_its_side() {
    let (_right, conversation) = Scripted::new();
    let (_close, mut closing) = watch::channel(false);
    let (responses, mut taken) = mpsc::channel(1);
    let running = async {
        run(asking(&[1, 2, 3]), conversation, &mut closing, &responses)
            .await
            .unwrap();
        drop(responses);
    };
    let taking = async {
        let mut answers = Vec::new();
        while let Some(answer) = taken.recv().await {
            answers.push(answer.unwrap());
        }
        answers
    };
    let both = async { tokio::join!(running, taking).1 };
    let answers = time::timeout(DEADLINE, both).await.unwrap();
    assert_eq!(answers, [1, 2, 3]);
}

/// SDS-S20, SDS-S26: its client takes nothing, and what is owed waits.
#[tokio::test]
async fn ends_a_stream_whose_caller_lost_its_right_however_slow_the_client_is() {
    let (right, conversation) = Scripted::new();
    let (_close, mut closing) = watch::channel(false);
    let (responses, _taken) = mpsc::channel(1);
    let requests = asking(&[1, 2, 3]).chain(tokio_stream::pending());
    let running = run(requests, conversation, &mut closing, &responses);
    let evicting = async {
        while responses.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        right.send_replace(false);
    };
    let both = async { tokio::join!(running, evicting).0 };
    let ended = time::timeout(DEADLINE, both).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
}

/// SDS-S26: a change that was not told of.
#[tokio::test]
async fn sends_nothing_to_a_caller_without_the_right() {
    let (_sender, conversation) = Scripted::new();
    let right = watch::channel(false).1;
    let conversation = Scripted {
        right,
        ..conversation
    };
    let (_close, mut closing) = watch::channel(false);
    let (responses, mut taken) = mpsc::channel(1);
    let requests = asking(&[1]).chain(tokio_stream::pending());
    let ended = time::timeout(
        DEADLINE,
        run(requests, conversation, &mut closing, &responses),
    );
    let ended = ended.await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied);
    assert!(taken.try_recv().is_err());
}

/// SDS-S22, SDS-S23
#[tokio::test]
async fn ends_with_the_status_that_says_whose_fault_it_is() {
    let (_right, conversation) = Scripted::new();
    let (_close, mut closing) = watch::channel(true);
    let (responses, _taken) = mpsc::channel(1);
    let ended = run(
        tokio_stream::pending(),
        conversation,
        &mut closing,
        &responses,
    );
    let ended = time::timeout(DEADLINE, ended).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    let (_right, conversation) = Scripted::new();
    let (_close, mut closing) = watch::channel(false);
    let garbled = tokio_stream::once(Err(Status::internal("no protobuf")));
    let ended = run(garbled, conversation, &mut closing, &responses);
    let ended = time::timeout(DEADLINE, ended).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::InvalidArgument);
}
