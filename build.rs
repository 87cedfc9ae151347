//! Generates the gRPC code from `proto/`, and finds PostgreSQL's binaries among the dependencies.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use tonic_prost_build::FileDescriptorSet;

fn main() -> Result<(), Box<dyn Error>> {
    generate_grpc()?;
    if env::var_os("CARGO_FEATURE_CARRIED_POSTGRES").is_some() {
        let archive = find_carried_postgres()?;
        println!("cargo:rerun-if-changed={}", archive.display());
        println!(
            "cargo:rustc-env=BOOKING_CARRIED_POSTGRES={}",
            archive.display()
        );
        println!("cargo:rustc-env=BOOKING_CARRIED_POSTGRES_VERSION={CARRIED_POSTGRES_VERSION}");
    }
    Ok(())
}

/// Compiles the protos with `protox`, so that nobody needs `protoc`.
fn generate_grpc() -> Result<(), Box<dyn Error>> {
    // tonic-prost-build prints no rerun-if-changed when it is handed descriptors.
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build.rs");
    let descriptors: FileDescriptorSet = protox::compile(
        [
            "booking/v1/booking_service.proto",
            "booking/v1/error_reason.proto",
        ],
        ["proto"],
    )?;
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(
        out_dir.join("booking_descriptor.bin"),
        descriptors.encode_to_vec(),
    )?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}

/// The version of the `pglite-rs-lib-*` crates in Cargo.toml.
const CARRIED_POSTGRES_VERSION: &str = "0.2.7";

/// The archive of PostgreSQL's binaries inside the `pglite-rs-lib-*` crate of this target.
///
/// That crate's build script does not tell where the crate lies, so Cargo is asked; about a package
/// that has nothing but this dependency, since for our own it would want every development
/// dependency downloaded first.
fn find_carried_postgres() -> Result<PathBuf, Box<dyn Error>> {
    let target = env::var("TARGET")?;
    let package = format!("pglite-rs-lib-{target}");
    let probe = PathBuf::from(env::var("OUT_DIR")?).join("locate");
    fs::create_dir_all(&probe)?;
    fs::write(
        probe.join("Cargo.toml"),
        format!(
            "[workspace]\n[package]\nname = \"locate\"\n[lib]\npath = \"lib.rs\"\n\
             [dependencies]\n{package} = \"={CARRIED_POSTGRES_VERSION}\"\n"
        ),
    )?;
    let output = Command::new(env::var("CARGO")?)
        .args([
            "metadata",
            "--format-version=1",
            "--offline",
            "--manifest-path",
        ])
        .arg(probe.join("Cargo.toml"))
        .output()?;
    let hint = format!(
        "no PostgreSQL to carry for {target}: build with --no-default-features and have PostgreSQL \
         installed"
    );
    if !output.status.success() {
        return Err(format!("{hint}\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|candidate| candidate["name"] == package.as_str())
        .and_then(|found| Path::new(found["manifest_path"].as_str()?).parent())
        .map(|root| root.join("lib/pglite-runtime.tar.zst"))
        .filter(|archive| archive.is_file())
        .ok_or_else(|| hint.into())
}
