//! Generates the message types, and a ttrpc client and server trait for each service, from `proto/`.
//!
//! Pure Rust: no `protoc` is needed. The messages use the lite runtime, which leaves out descriptors and reflection:
//! one formatted message would otherwise cost PID 1 a megabyte of text.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use ttrpc_codegen::{Codegen, Customize, ProtobufCustomize};

/// What a guest serves. The other files of `proto/` describe neighbours of the agent API: only the tests read them.
const INPUTS: &[&str] = &[
    "proto/agent.proto",
    "proto/csi.proto",
    "proto/health.proto",
    "proto/hyperstart/v1/guest.proto",
    "proto/oci.proto",
    "proto/types.proto",
];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    Codegen::new()
        .out_dir(&out)
        .inputs(INPUTS)
        .include("proto")
        .rust_protobuf()
        .rust_protobuf_customize(ProtobufCustomize::default().lite_runtime(true).gen_mod_rs(true))
        .customize(Customize { async_all: true, gen_mod: true, ..Customize::default() })
        .run()?;
    for service in ["agent_ttrpc.rs", "guest_ttrpc.rs", "health_ttrpc.rs"] {
        answer_unimplemented(&out.join(service))?;
    }
    index_without_inner_attributes(&out.join("mod.rs"))
}

/// A method that a server does not have is UNIMPLEMENTED. The generator says NOT_FOUND, which a Kata runtime takes for
/// "no such process".
fn answer_unimplemented(service: &Path) -> io::Result<()> {
    let generated = fs::read_to_string(service)?;
    let methods = generated.matches("is not supported\"").count();
    if methods == 0 || generated.matches("Code::NOT_FOUND").count() != methods {
        return Err(io::Error::other(format!(
            "{service:?}: the generator's default answer has changed"
        )));
    }
    fs::write(service, generated.replace("Code::NOT_FOUND", "Code::UNIMPLEMENTED"))
}

/// `include!` takes no inner attributes, and the generated index begins with one.
fn index_without_inner_attributes(index: &Path) -> io::Result<()> {
    let generated = fs::read_to_string(index)?;
    let lines = generated.lines().filter(|line| !line.starts_with("#!["));
    fs::write(index, lines.collect::<Vec<_>>().join("\n"))
}
