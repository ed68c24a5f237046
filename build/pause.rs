//! Compiles the pause program into `OUT_DIR`, where the crate embeds it: static, without any library.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

/// Compiles `build/pause/main.rs` with the compiler that compiles the crate.
pub fn compile() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("pause");
    let target = env::var_os("TARGET").ok_or("cargo sets TARGET")?;
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("cargo sets RUSTC")?);
    rustc.args(["build/pause/main.rs", "--crate-name", "pause", "--crate-type", "bin", "--edition", "2024"]);
    rustc.arg("--target").arg(target).arg("-o").arg(&out);
    let options = ["panic=abort", "opt-level=s", "debuginfo=0", "strip=symbols", "relocation-model=static"];
    let link = ["-static", "-nostartfiles", "-nostdlib", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,norelro"];
    for option in options {
        rustc.args(["-C", option]);
    }
    for argument in link {
        rustc.args(["-C", &format!("link-arg={argument}")]);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
    }
    // Flags of the crate (coverage, sanitizers) make no sense for a program without a library.
    rustc.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
    let output = rustc.output()?;
    if !output.status.success() {
        return Err(format!("compile the pause program: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}
