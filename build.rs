//! What is made before the crate compiles; each file in `build/` makes one thing.

use std::error::Error;

#[path = "build/pause.rs"]
mod pause;
#[path = "build/proto.rs"]
mod proto;
#[path = "build/schema.rs"]
mod schema;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    schema::generate()?;
    pause::compile()?;
    proto::compile()
}
