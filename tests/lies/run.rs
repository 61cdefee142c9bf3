//! One run: a path with lies, and the check at its end.

use std::{collections::BTreeMap, fmt, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use tokio::time::timeout;
use upload_gateway_core::blobs::Session;

use crate::{
    failed::Failed,
    layer::Made,
    lie::Rule,
    paths::{End, Path},
    world::{StoreKind, World, md5_of},
};

/// After this a run hangs: longer than its own deadline and a request to the store.
const LIMIT: Duration = Duration::from_secs(60);

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Case {
    pub(crate) store: StoreKind,
    pub(crate) path: Path,
    pub(crate) rules: Vec<Rule>,
}

/// What happened.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) case: Case,
    pub(crate) failed: Option<Failed>,
    pub(crate) log: Vec<Made>,
}

// === impl Case ===

impl Case {
    /// `None` if the server is not installed.
    pub(crate) async fn run(self) -> Option<Outcome> {
        let faults = self.path.faults(self.store.protocol());
        let lies = self.rules.clone();
        let mut world = Box::pin(World::start(self.store, faults, lies)).await?;
        let run = AssertUnwindSafe(Box::pin(self.path.run(&mut world))).catch_unwind();
        let ended = match timeout(LIMIT, run).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(panic)) => Err(Failed::Panicked(text(&panic))),
            Err(_) => Err(Failed::Stuck {
                last: "the whole run".into(),
            }),
        };
        let log = world.layer.log();
        let failed = match ended {
            Ok(end) => check(&world, self.path, &end, &log).await.err(),
            Err(failed) => Some(match destroyed(self.path, &log) {
                Some(calls) => Failed::Destroyed(format!("{calls}; {failed}")),
                None => failed,
            }),
        };
        // A dropped gateway would continue to check its stores.
        let _ = timeout(LIMIT, world.stop()).await;
        Some(Outcome {
            case: self,
            failed,
            log,
        })
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.store, self.path)?;
        for (index, rule) in self.rules.iter().rev().enumerate() {
            let separator = if index == 0 { "" } else { " then" };
            write!(formatter, "{separator} {rule}")?;
        }
        Ok(())
    }
}

/// Compares the end with what must be.
async fn check(world: &World, path: Path, end: &End, log: &[Made]) -> Result<(), Failed> {
    if let Some(calls) = destroyed(path, log) {
        return Err(Failed::Destroyed(calls));
    }
    match end {
        End::Complete(upload, data) => {
            let object = upload.object.as_ref();
            let object = object.ok_or_else(|| Failed::Wrong("COMPLETE without object".into()))?;
            if world.read(&object.key).await? != *data {
                return Err(Failed::Wrong("the object has other bytes".into()));
            }
            if usize::try_from(object.size) != Ok(data.len()) {
                return Err(Failed::Wrong(format!("object.size is {}", object.size)));
            }
            if !object.md5.is_empty() && object.md5 != md5_of(data).to_string() {
                return Err(Failed::Wrong("object.md5 is not that of the object".into()));
            }
        }
        End::Cleared { key, session } => {
            if world.truth.head(key).await.unwrap().is_some() {
                return Err(Failed::Wrong("an object is left".into()));
            }
            if let Some(id) = session {
                let session = Session {
                    key,
                    id,
                    scope: None,
                };
                if world.truth.list_parts(&session).await.unwrap().is_some() {
                    return Err(Failed::Wrong("a session is left".into()));
                }
            }
        }
    }
    Ok(())
}

/// The calls that destroyed something, and must not have been made.
fn destroyed(path: Path, log: &[Made]) -> Option<String> {
    if path.destroys() {
        return None;
    }
    destroyed_in(log)
}

/// The calls that destroyed something.
pub(crate) fn destroyed_in(log: &[Made]) -> Option<String> {
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for made in log.iter().filter(|made| made.call.destroys()) {
        *calls.entry(made.call.name.as_str()).or_default() += 1;
    }
    let calls: Vec<_> = calls
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    (!calls.is_empty()).then(|| calls.join(", "))
}

/// The text of a panic.
fn text(panic: &Box<dyn std::any::Any + Send>) -> String {
    let literal = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = literal.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no text".into())
}
