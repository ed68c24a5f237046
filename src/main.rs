//! The `kube-lite` program: parses the command line and runs the chosen subcommand.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match kube_lite::cli::run(std::env::args_os().collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kube-lite: {error:#}");
            ExitCode::FAILURE
        }
    }
}
