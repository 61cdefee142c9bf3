//! What a call carries along, also into the tasks that are spawned for it: the edge puts it in, whoever knows its type
//! takes it out, and the use cases between them know nothing of it.

use std::{any::Any, future::Future, sync::Arc};

use futures::future::Either;

type Context = Arc<dyn Any + Send + Sync>;

tokio::task_local! {
    static CURRENT: Context;
}

/// Runs `call` with something to scope along.
pub fn scope<F: Future>(
    current: Arc<impl Any + Send + Sync>,
    call: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(current, call)
}

/// What the running call carries along, if that is a `T`.
pub fn current<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let current = CURRENT.try_with(Arc::clone).ok()?;
    current.downcast().ok()
}

/// Lets a task that is spawned for the running call scope the same along. Costs nothing where nothing is current.
pub fn propagate<F: Future>(task: F) -> impl Future<Output = F::Output> {
    match CURRENT.try_with(Arc::clone) {
        Ok(current) => Either::Left(CURRENT.scope(current, task)),
        Err(_) => Either::Right(task),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_inherits_what_its_call_carries_and_no_other_does() {
        let call = async { tokio::spawn(propagate(async { current::<u8>() })).await };
        let inherited = scope(Arc::new(7_u8), call).await.unwrap();
        assert_eq!(inherited.as_deref(), Some(&7));
        assert_eq!(tokio::spawn(async { current::<u8>() }).await.unwrap(), None);
    }

    #[tokio::test]
    async fn something_of_another_type_is_not_taken_for_it() {
        assert_eq!(
            scope(Arc::new("seven"), async { current::<u8>() }).await,
            None
        );
    }
}
