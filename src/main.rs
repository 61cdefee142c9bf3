//! The `upload-gateway` binary.

fn main() {}
