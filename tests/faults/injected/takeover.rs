//! Two streams write to one upload, with other bytes from where the second one opens it: the object is wholly what the one
//! that was told COMPLETE sent.

use futures::{StreamExt, stream};
use tonic::{Code, Status};
use upload_gateway_client::proto::v1::{Phase, Upload};
use upload_gateway_core::upload::Md5;

use super::{
    common::{Conversation, TestGateway, bytes, chunk, finish, open_known, reason},
    for_each_store,
    stores::{Stores, begin, converse},
};

for_each_store!(the_object_is_wholly_what_the_winner_sent);

const ROUNDS: usize = 100;

/// How many rounds are under way at once.
const SIDE_BY_SIDE: usize = 4;

const CHUNK: usize = 1 << 20;

/// How much later the first stream's parts arrive, in milliseconds: at once, beside the second stream's, behind them.
const PUT_DELAYS: [usize; 5] = [0, 0, 20, 60, 150];

/// How much later the second stream takes over, in milliseconds: at once, in the commit, behind it.
const OPEN_DELAYS: [usize; 4] = [0, 30, 100, 500];

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// The first stream was done before it was taken over.
    First,
    /// The second stream took over and finished.
    Second,
    /// The store was left with a part of the wrong stream, both were told so, and there is no object.
    Neither,
}

struct Round<'a> {
    stores: &'a Stores,
    one: &'a TestGateway,
    other: &'a TestGateway,
    number: usize,
    /// What the first stream sends, and what the second one sends from where it begins.
    files: [&'a [u8]; 2],
}

async fn the_object_is_wholly_what_the_winner_sent(stores: Stores) {
    let (one, other) = (stores.gateway().await, stores.gateway().await);
    let file = bytes(stores.part + 1000);
    let inverse: Vec<u8> = file.iter().map(|byte| !byte).collect();
    let rounds = (0..ROUNDS).map(|number| {
        let round = Round {
            stores: &stores,
            one: &one,
            other: &other,
            number,
            files: [&file, &inverse],
        };
        async move { round.run().await }
    });
    let outcomes: Vec<Outcome> = stream::iter(rounds)
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    let count = |wanted| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    let (first, second) = (count(Outcome::First), count(Outcome::Second));
    let told = format!("first {first}, second {second} of {ROUNDS}");
    assert!(first > 0 && second > ROUNDS / 2, "{told}");
    assert_eq!(stores.open_sessions().await, [], "{told}");
}

// === impl Round ===

impl Round<'_> {
    async fn run(&self) -> Outcome {
        let [file, _] = self.files;
        let delay = PUT_DELAYS[self.number % PUT_DELAYS.len()];
        let fault = format!("store.put_part:times=2:delay={delay}ms");
        let (first, opened) = begin(&self.one.grpc, &fault, file).await.unwrap();
        let id = opened.upload_id;
        // The second stream comes after none, some or all of them, or after the finish.
        let chunks = file.len().div_ceil(CHUNK);
        let before = self.number / 2 % (chunks + 2);
        let (sent, rest) = file.split_at(file.len().min(before * CHUNK));
        first.send_in_chunks(0, sent, CHUNK).await;
        if before > chunks {
            first.send(finish()).await;
        }
        let (first, second) = tokio::join!(
            end_first(first, sent.len(), rest, before <= chunks),
            self.take_over(&id)
        );
        let record = self.other.get(&id).await.unwrap();
        let told = format!("round {}: {first:?}, {second:?}", self.number);
        match (&first, &second) {
            (Ok(first), Ok((second, _))) if first == second => {
                self.assert_holds(&record, file, &told).await;
                Outcome::First
            }
            (Err(status), Ok((second, sent))) => {
                assert_eq!(reason(status), (Code::Aborted, "TAKEN_OVER".into()));
                assert_eq!(record, *second, "{told}");
                self.assert_holds(&record, sent, &told).await;
                Outcome::Second
            }
            (Err(first), Err(second)) => {
                assert_eq!(reason(first).1, "TAKEN_OVER", "{told}");
                assert_eq!(reason(second).1, "PART_REPLACED", "{told}");
                assert_eq!(record.phase(), Phase::Aborted, "{told}");
                Outcome::Neither
            }
            _ => panic!("{told}"),
        }
    }

    /// Opens the upload at the other gateway and sends other bytes from there on; with the answer all bytes that are then
    /// the file's.
    async fn take_over(&self, id: &str) -> Result<(Upload, Vec<u8>), Status> {
        let [file, inverse] = self.files;
        let delay = OPEN_DELAYS[self.number / PUT_DELAYS.len() % OPEN_DELAYS.len()];
        let fault = format!("state.take_over:delay={delay}ms");
        let mut stream = converse(&self.other.grpc, &fault).await;
        stream.send(open_known(id)).await;
        let committed = usize::try_from(stream.next().await?.committed_size).unwrap();
        let sent = [&file[..committed], &inverse[committed..]].concat();
        stream
            .send_in_chunks(committed, &sent[committed..], CHUNK)
            .await;
        stream.send(finish()).await;
        Ok((stream.end().await?, sent))
    }

    async fn assert_holds(&self, record: &Upload, sent: &[u8], told: &str) {
        assert_eq!(record.phase(), Phase::Complete, "{told}");
        let object = record.object.as_ref().unwrap();
        assert_eq!(object.md5, Md5::of(sent).to_string(), "{told}");
        assert!(self.stores.read(record).await == sent, "mixed: {told}");
    }
}

/// Sends the rest of the first stream's file.
async fn end_first(
    stream: Conversation,
    offset: usize,
    rest: &[u8],
    unfinished: bool,
) -> Result<Upload, Status> {
    for (index, piece) in rest.chunks(CHUNK).enumerate() {
        stream.send(chunk(offset + index * CHUNK, piece)).await;
    }
    if unfinished {
        stream.send(finish()).await;
    }
    stream.end().await
}
