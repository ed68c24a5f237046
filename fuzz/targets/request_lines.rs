//! The target `request_lines` of `src/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube_lite::fuzzing::run("request_lines", data));
