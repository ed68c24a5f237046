//! The `kube-lite` program: parses the command line and runs the chosen subcommand.

fn main() {}
