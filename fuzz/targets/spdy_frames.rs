//! The target `spdy_frames` of `src/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kube_lite::fuzzing::run("spdy_frames", data));
