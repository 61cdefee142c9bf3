//! The limit of open file descriptors.

/// Raises the soft limit of open file descriptors to the hard one, and warns if even that is less than `needed`. Systems start
/// processes with a soft limit of 1,024, because `select` cannot use more; this process does not use it.
pub(crate) fn raise_limit(needed: u64) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        let current = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(error) => {
                tracing::debug!(%error, "raise the limit of file descriptors");
                limit.current
            }
        };
        // None: no limit.
        if let Some(current) = current.filter(|current| *current < needed) {
            tracing::warn!(
                "the process may open {current} file descriptors, but needs {needed} at its limits of connections: raise the limit (ulimit -n, LimitNOFILE) or lower limits.max_connections"
            );
        }
    }
    #[cfg(not(unix))]
    let _ = needed;
}
