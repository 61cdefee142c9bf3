//! What a call carries along, also into the tasks that are spawned for it: the edge puts it in, whoever knows its type
//! takes it out, and the use cases between them know nothing of it.

use std::{any::Any, future::Future, sync::Arc};

use futures::future::Either;

type Carried = Arc<dyn Any + Send + Sync>;

tokio::task_local! {
    static CARRIED: Carried;
}

/// Runs `call` with something to carry along.
pub fn carry<F: Future>(
    carried: Arc<impl Any + Send + Sync>,
    call: F,
) -> impl Future<Output = F::Output> {
    CARRIED.scope(carried, call)
}

/// What the running call carries along, if that is a `T`.
pub fn carried<T: Any + Send + Sync>() -> Option<Arc<T>> {
    let carried = CARRIED.try_with(Arc::clone).ok()?;
    carried.downcast().ok()
}

/// Lets a task that is spawned for the running call carry the same along. Costs nothing where nothing is carried.
pub fn inherit<F: Future>(task: F) -> impl Future<Output = F::Output> {
    match CARRIED.try_with(Arc::clone) {
        Ok(carried) => Either::Left(CARRIED.scope(carried, task)),
        Err(_) => Either::Right(task),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_inherits_what_its_call_carries_and_no_other_does() {
        let call = async { tokio::spawn(inherit(async { carried::<u8>() })).await };
        let inherited = carry(Arc::new(7_u8), call).await.unwrap();
        assert_eq!(inherited.as_deref(), Some(&7));
        assert_eq!(tokio::spawn(async { carried::<u8>() }).await.unwrap(), None);
    }

    #[tokio::test]
    async fn something_of_another_type_is_not_taken_for_it() {
        assert_eq!(
            carry(Arc::new("seven"), async { carried::<u8>() }).await,
            None
        );
    }
}
