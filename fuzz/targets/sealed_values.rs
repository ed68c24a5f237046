//! The target `sealed_values` of `src/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube_lite::fuzzing::run("sealed_values", data));
