#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| upload_gateway::fuzzing::stream_frames(bytes));
