//! Set-ups with an Azure storage.

use super::{super::azure_toml, Setups};
use crate::common;

pub(super) async fn setups() -> Option<Setups> {
    let azure = common::azure().await?;
    let (toml, mut setups) = (azure_toml(&azure), Setups::default());
    let with = |from: &str, to: &str| toml.replace(from, to);
    setups.add(
        "the container does not exist",
        with(&azure.container, "no-such-container"),
    );
    let other_key = azure.account_key.replacen("Eby8", "Eby9", 1);
    setups.add(
        "the account key is wrong",
        with(azure.account_key, &other_key),
    );
    setups.add(
        "the account key is not base64",
        with(azure.account_key, "hunter2!"),
    );
    setups.add("the account does not exist", with(azure.account, "other"));
    setups.add("the account of Azure hides versioning", toml.clone());
    setups.keep(azure);
    Some(setups)
}
