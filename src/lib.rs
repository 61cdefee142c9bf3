//! The upload gateway: internal services stream files to it over gRPC, it cuts them into parts, puts each part into S3 or
//! Azure Blob, keeps what it did in a state store, and goes on where a broken stream ended, on any replica.
//!
//! ```text
//!   callers            edges                 use cases             ports            adapters
//!
//!   gRPC  ───────▶  grpc::UploadApi  ──┐                     ┌──▶ StateStore ──▶ state::{redis, redb}
//!                   grpc::SigningApi   ├──▶  gateway::Gateway ┤
//!   HTTP  ───────▶  rest             ──┘      │              └──▶ BlobStore  ──▶ blobs::{s3, azure}
//!                                             ▼                                        │
//!                                     upload::Upload (domain)             blobs::embedded (an S3 on loopback)
//! ```
//!
//! Bytes come in two ways. *Streamed*: the sender gives them to the gateway, which puts them into the store. *Signed*: the
//! gateway signs requests (`blobs::sign`) that the client sends to the store itself. One record serves both ways, and an
//! upload begun one way can be finished the other way.
//!
//! Imports point from left to right and towards the domain, never back; `tests/architecture.rs` holds them to it.
//!
//! | room | what it is for |
//! |---|---|
//! | `upload` | the domain: one upload's record, how a file is cut, and the rules of its life. Pure |
//! | `error` | one error type, by kind: what its reader does next |
//! | `state`, `blobs` | the two ports, and their adapters below them |
//! | `gateway` | the use cases: they put domain and ports in sequence |
//! | `status` | the one table from kinds to gRPC codes, HTTP statuses and log levels |
//! | `grpc`, `rest` | the edges: parse, ask the gateway, convert |
//! | `call` | what a call carries from its edge to its ports, unseen by the use cases |
//! | `faults` | decorators of the ports that fail as a call asks, for tests; not there unless configured |
//! | `config`, `serve`, `telemetry`, `cli` | the process |
//! | `client` | a client that resumes by itself, through the gateway or straight to the store; the command line is built on it |
//!
//! # One upload, walked through
//!
//! 1. A stream's first message opens an upload (`gateway::Open`): a new record is created in the state store under a
//!    fresh random *writer tag*, or a known one is taken over, which fences out the stream that wrote before.
//! 2. Chunks fill a part's buffer. The sizes and places of parts are dictated by the `upload::Plan` in the record, so
//!    every replica cuts alike; where the chunks begin and end does not matter.
//! 3. A full part goes its own way while the next one fills: its MD5 is taken off the async workers, the store
//!    acknowledges it (`blobs::BlobStore::put_part`), and then, in this order, the state store records it
//!    (`state::StateStore::record_parts`) with the MD5 state of the whole file up to its end.
//! 4. The connection breaks. Whole parts that were received are still put and recorded; the rest is forgotten.
//! 5. The sender opens the upload again, on any replica, and learns `committed_size`: the end of the contiguous prefix of
//!    recorded parts. It goes on there, and so does the whole-file digest. With the newest *resume token*
//!    (`upload::Snapshot`) it does so also when the state store has lost the record, or the end of it: the gateway puts it
//!    together again from the token and what the store lists.
//! 6. `finish` begins the commit: the record becomes COMMITTING under a lease, the store's list of parts is compared with
//!    the record, the store makes the object of exactly the recorded parts, and HEAD verifies it. Then the record is
//!    COMPLETE, and says where the object lies.
//! 7. Where the committer dies on the way, whoever meets the record looks for the object, and records it where it is there;
//!    otherwise they commit when the lease has ended. A committer that gives up shortens its lease.
//!
//! # What is left behind
//!
//! One replica at a time sweeps (`gateway::Gateway::sweep`): an upload that nobody came back to becomes ABORTED, and then
//! its session ends; a commit whose committer is gone is finished; and sessions that no record knows are ended once they
//! are older, by the store's own clock, than any upload may be. When an upload is due is noted in an index that is only a
//! hint (`state::StateStore::due`).
//!
//! # The signed way
//!
//! 1. A create makes the same record, and the first request is signed: put the whole file, or begin the store's session.
//!    The same create finds the record again, and signs for where it was begun.
//! 2. Each part is signed with its number, size and MD5; the MD5 is noted as a *claim*
//!    (`state::StateStore::claim`), side by side with whatever others note or record.
//! 3. The client puts parts into the store and says so. Nothing it says counts: the store is asked for its parts when a
//!    stream opens the upload, when the same create finds it, and at the finish. A stream *adopts* the client's parts
//!    behind the committed ones and goes on after them.
//! 4. The finish is signed for exactly the parts that the store has as the plan wants them. The client sends it.
//! 5. At completion the object itself is looked at: size, digest of its parts, blocks. Then the record is COMPLETE. An object
//!    that nobody reported is found whenever the upload is met again.
//!
//! # What always holds
//!
//! - A part is *committed* when the store has acknowledged it and then the state store has recorded it. A recorded part
//!   whose MD5 is known is never put again, and `committed_size` never goes down, unless the state store lost what it
//!   acknowledged: then a resume token brings it back, or the sender is told (`STATE_LOST`).
//! - A resume token permits nothing: it adds to a record only what the store itself still has, and never revives one that
//!   is over.
//! - What a client claims of a part is never proof that it exists.
//! - Nothing of an upload lives in a process's memory but the parts that are on their way.
//! - One writer: every write of parts compares the writer tag, every other write the record's version. Tags are random
//!   and have no order, so a state store that was rolled back cannot hand out one twice. That another stream has become the
//!   writer is published, but only as a hint to look at the record.
//! - Object keys hold the upload's id and are never reused, so what HEAD finds under one is that upload's object.
//! - `upload::Upload::apply` is the only way from one phase to another.
//! - What lies in memory is bounded by the byte budget, whatever the files' sizes and however slow the streams are.
//! - A server fault never shows its inside to the caller.

pub mod blobs;
pub mod cli;
pub mod config;
pub mod embedded_s3;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../fuzz/checks/lib.rs"]
pub mod fuzzing;
pub mod grpc;
pub mod proto;
pub mod rest;
pub mod serve;
pub mod state;
pub mod status;
pub mod telemetry;
mod unknown_format;
