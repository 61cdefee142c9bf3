#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| upload_gateway::fuzzing::token_claims(bytes));
