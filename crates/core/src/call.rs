//! Values that belong to a call, and that use cases pass on unchanged, also to the tasks that they spawn. An edge adds
//! a value, and the code that knows its type reads it.

use std::{any::Any, fmt, future::Future, sync::Arc};

use futures::future::Either;
use tracing::{Instrument, Span};

/// A value of a call.
pub type Value = Arc<dyn Any + Send + Sync>;

tokio::task_local! {
    /// The values of the running call, the newest last.
    static CURRENT: Arc<[Value]>;
}

/// The values of a call, for work that is no future: it is polled after the call's own future has ended.
#[derive(Clone)]
pub struct Scope(Arc<[Value]>);

/// Runs `call` with `value` in its scope, in addition to the values of the outer scope. A value hides an outer value of
/// the same type.
pub async fn scope<F: Future>(value: Arc<impl Any + Send + Sync>, call: F) -> F::Output {
    scope_all(vec![value], call).await
}

/// As [`scope`], with several values.
pub async fn scope_all<F: Future>(mut values: Vec<Value>, call: F) -> F::Output {
    // A call seldom has an outer scope.
    let _ = CURRENT.try_with(|outer| drop(values.splice(0..0, outer.iter().cloned())));
    CURRENT.scope(values.into(), call).await
}

/// The newest value of type `T` in the scope of the running call.
pub fn current<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let find = |values: &Arc<[Value]>| {
        let found = values.iter().rfind(|value| value.is::<T>())?;
        Arc::clone(found).downcast().ok()
    };
    CURRENT.try_with(find).ok().flatten()
}

/// Gives a spawned task the scope of the running call, and its span, so that its log lines name the call.
pub fn propagate<F: Future>(task: F) -> impl Future<Output = F::Output> {
    let task = task.instrument(Span::current());
    match CURRENT.try_with(Arc::clone) {
        Ok(values) => Either::Left(CURRENT.scope(values, task)),
        Err(_) => Either::Right(task),
    }
}

// === impl Scope ===

impl fmt::Debug for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Scope({} values)", self.0.len())
    }
}

impl Scope {
    /// The scope of the running call.
    pub fn current() -> Self {
        Self(CURRENT.try_with(Arc::clone).unwrap_or_default())
    }

    /// Runs `work` in the scope.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(Arc::clone(&self.0), work)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_spawned_task_has_the_scope_of_its_call_only_with_propagate() {
        let call = async { tokio::spawn(propagate(async { current::<u8>() })).await };
        let inherited = scope(Arc::new(7_u8), call).await.unwrap();
        assert_eq!(inherited.as_deref(), Some(&7));
        assert_eq!(tokio::spawn(async { current::<u8>() }).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_scope_holds_values_of_several_types() {
        let both = async { (current::<u8>(), current::<&str>(), current::<u16>()) };
        let inner = scope(Arc::new("seven"), both);
        let (number, text, other) = scope(Arc::new(7_u8), inner).await;
        assert_eq!(
            (number.as_deref(), text.as_deref()),
            (Some(&7), Some(&"seven"))
        );
        assert_eq!(other, None);
    }

    #[tokio::test]
    async fn work_after_the_call_runs_in_its_scope() {
        let call = async { Scope::current() };
        let kept = scope(Arc::new(7_u8), call).await;
        assert_eq!(current::<u8>(), None);
        assert_eq!(kept.enter(current::<u8>).as_deref(), Some(&7));
    }

    #[tokio::test]
    async fn an_inner_value_hides_an_outer_value_of_the_same_type() {
        let inner = scope(Arc::new(8_u8), async { current::<u8>() });
        assert_eq!(scope(Arc::new(7_u8), inner).await.as_deref(), Some(&8));
    }
}
