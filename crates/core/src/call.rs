//! What a call carries through the use cases, also into the tasks that are spawned for it: an edge puts it in, and the code
//! that knows its type takes it out.

use std::{any::Any, future::Future, sync::Arc};

use futures::future::Either;

type Value = Arc<dyn Any + Send + Sync>;

tokio::task_local! {
    /// The values of the running call, the latest last.
    static CURRENT: Arc<[Value]>;
}

/// Runs `call` with `value` in its scope, beside the values of the scope around it. A value hides an outer one of its type.
pub async fn scope<F: Future>(value: Arc<impl Any + Send + Sync>, call: F) -> F::Output {
    let outer = CURRENT.try_with(Arc::clone).unwrap_or_default();
    let values = outer.iter().cloned().chain([value as Value]);
    CURRENT.scope(values.collect(), call).await
}

/// The `T` in the scope of the running call, if there is one.
pub fn current<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let find = |values: &Arc<[Value]>| {
        let mut latest_first = values.iter().rev();
        latest_first.find_map(|value| Arc::clone(value).downcast().ok())
    };
    CURRENT.try_with(find).ok().flatten()
}

/// Gives a task that is spawned for the running call the scope of that call. Costs nothing without a scope.
pub fn propagate<F: Future>(task: F) -> impl Future<Output = F::Output> {
    match CURRENT.try_with(Arc::clone) {
        Ok(values) => Either::Left(CURRENT.scope(values, task)),
        Err(_) => Either::Right(task),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_spawned_task_has_the_scope_of_its_call_only_if_it_is_propagated() {
        let call = async { tokio::spawn(propagate(async { current::<u8>() })).await };
        let inherited = scope(Arc::new(7_u8), call).await.unwrap();
        assert_eq!(inherited.as_deref(), Some(&7));
        assert_eq!(tokio::spawn(async { current::<u8>() }).await.unwrap(), None);
    }

    #[tokio::test]
    async fn values_of_several_types_are_found_beside_each_other() {
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
    async fn an_inner_value_hides_an_outer_one_of_its_type() {
        let inner = scope(Arc::new(8_u8), async { current::<u8>() });
        assert_eq!(scope(Arc::new(7_u8), inner).await.as_deref(), Some(&8));
    }
}
