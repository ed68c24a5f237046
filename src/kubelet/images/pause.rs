//! The image that holds a pod's namespaces. It is built into the binary, so that no registry is needed for it.

use super::archive::Image;

/// The program, compiled by `build/pause.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The image's name; its tag is our version.
pub const IMAGE: &str = concat!("kube-lite.io/pause:", env!("CARGO_PKG_VERSION"));

/// The image as an archive to import.
pub fn archive() -> std::io::Result<Vec<u8>> {
    Image::new(IMAGE).file("pause", 0o755, PROGRAM).entrypoint(&["/pause"]).archive()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn the_program_is_small_and_static() {
        assert_eq!(&PROGRAM[..4], b"\x7fELF");
        assert!(PROGRAM.len() < 16 << 10, "{} bytes", PROGRAM.len());
        assert!(!PROGRAM.windows(8).any(|window| window == b"ld-linux"));
    }

    /// Whether the process waits in the system call that takes signals.
    fn waits_for_signals(pid: u32) -> bool {
        let number = if cfg!(target_arch = "aarch64") { "137 " } else { "128 " };
        std::fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|text| text.starts_with(number))
    }

    #[test]
    fn the_program_ends_when_asked_to() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pause");
        std::fs::write(&path, PROGRAM).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut pause = Command::new(&path).spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while !waits_for_signals(pause.id()) && Instant::now() < deadline {
                std::thread::yield_now();
            }
            kill(Pid::from_raw(pause.id().try_into().unwrap()), signal).unwrap();
            assert_eq!(pause.wait().unwrap().code(), Some(0), "{signal}");
        }
    }
}
