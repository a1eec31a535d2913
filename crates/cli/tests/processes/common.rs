//! What the tests of the binary share.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The binary under test.
pub fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_waybill"))
}

/// Runs the binary to its end.
pub fn waybill<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(args: I) -> Output {
    Command::new(program()).args(args).output().unwrap()
}

/// What a run wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes generated patients below `folder` with `waybill sample`.
pub fn sample(folder: &Path, options: &[&str]) -> PathBuf {
    let out = folder.join("sample");
    let output = waybill(["sample", out.to_str().unwrap()].iter().chain(options));
    assert!(output.status.success(), "{}", stderr(&output));
    out
}
