//! Limits that fit into the memory of the container.

use upload_gateway::config::{ByteSize, Config, ConfigError, Flags, load_within};

const MIB: u64 = 1024 * 1024;

fn within(memory: u64, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_within(Some(memory * MIB), None, variables, &Flags::default())
}

#[test]
fn limits_that_are_not_set_follow_from_the_container() {
    let limits = within(512, &[]).unwrap().limits;
    assert_eq!(limits.memory_budget, ByteSize(102 * MIB));
    let variable = ("UPLOAD_GATEWAY_LIMITS__MAX_CALLS", "100");
    let limits = within(512, &[variable]).unwrap().limits;
    assert_eq!((limits.max_calls, limits.max_streams), (100, 50));
    assert_eq!(limits.memory_budget, ByteSize(293 * MIB));
}

#[test]
fn limits_beyond_the_container_are_refused_with_their_origin() {
    let variable = ("UPLOAD_GATEWAY_LIMITS__MEMORY_BUDGET", "1GiB");
    let error = within(512, &[variable]).unwrap_err().to_string();
    for part in [
        "limits.memory_budget: memory at most ",
        "the 512 MiB of the container",
        "UPLOAD_GATEWAY_LIMITS__MEMORY_BUDGET",
    ] {
        assert!(error.contains(part), "{error}");
    }
}
