//! Which digest a storage gets with its bytes, and whether its store compares it.

use upload_gateway_core::{error::Result, gateway::IntegrityChoice};

use super::report::{Check, Fix};
use crate::blobs::in_words;

const INTEGRITY: &str = "put bytes with a wrong CRC64NVME";

/// The check of `storage.integrity`, whose key is `key`. `compares` is whether the store refused a wrong CRC-64.
pub(super) fn check(
    subject: &str,
    key: String,
    choice: IntegrityChoice,
    compares: Result<bool>,
) -> Check {
    use IntegrityChoice::{Auto, Crc64Nvme, Md5};
    let ok = |found: &str| Check::ok(subject, INTEGRITY, found);
    match (choice, compares) {
        (Auto | Crc64Nvme, Ok(true)) => ok("the store compares CRC64NVMEs, and gets them"),
        (Md5, Ok(true)) => {
            ok("the store compares CRC64NVMEs, and gets MD5s, which need more CPU time")
        }
        (Auto | Md5, Ok(false)) => ok("the store ignores CRC64NVMEs, and gets MD5s"),
        (Crc64Nvme, Ok(false)) => {
            let found = "the store ignores CRC64NVMEs, so nothing proves what it receives";
            Check::failed(subject, INTEGRITY, found).with(Fix::set(key, "auto"))
        }
        (_, Err(error)) => Check::not_checked(subject, INTEGRITY, in_words(&error)),
    }
}

#[cfg(test)]
mod tests {
    use upload_gateway_core::error::Error;

    use super::*;

    #[test]
    fn only_crc64s_that_the_store_ignores_are_a_failure() {
        use IntegrityChoice::{Auto, Crc64Nvme, Md5};
        for choice in [Auto, Crc64Nvme, Md5] {
            for (compares, is_failed) in [
                (Ok(true), false),
                (Ok(false), choice == Crc64Nvme),
                (Err(Error::store_unavailable("down")), false),
            ] {
                let check = check("storage media", "integrity".into(), choice, compares);
                assert_eq!(check.is_failed(), is_failed, "{choice:?}");
            }
        }
    }
}
