//! The target `json_patches` of `src/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube_lite::fuzzing::run("json_patches", data));
