//! The paths of `--record` and `--context`, as a server can open them: absolute, and leading somewhere.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Makes paths absolute. Folders and globs stay as they are: the server looks into them.
///
/// # Errors
/// [`Failure`] with exit code 2 for a path that leads nowhere or a malformed glob.
pub fn absolute(paths: &[String]) -> Result<Vec<PathBuf>, Failure> {
    paths.iter().map(|text| one(text)).collect()
}

fn one(text: &str) -> Result<PathBuf, Failure> {
    let path = std::path::absolute(Path::new(text))
        .map_err(|e| Failure::usage(format!("`{text}` is no path")).caused_by(e))?;
    if path.exists() {
        return Ok(path);
    }
    let hint = "give a file, a folder with .json or .ndjson files, or a quoted glob such as 'records/*.json'";
    if !text.contains(['*', '?', '[']) {
        return Err(Failure::usage(format!("`{text}` does not exist")).hint(hint));
    }
    let mut found = glob::glob(&path.to_string_lossy())
        .map_err(|e| Failure::usage(format!("`{text}` is not a glob")).caused_by(e))?;
    if found.any(|entry| entry.is_ok()) {
        Ok(path)
    } else {
        Err(Failure::usage(format!("`{text}` matches nothing")).hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn what_leads_somewhere_is_absolute_and_the_rest_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.json"), "{}").unwrap();
        let base = folder.path().to_string_lossy().into_owned();
        let good = [base.clone(), format!("{base}/a.json"), format!("{base}/*.json")];
        assert!(absolute(&good).unwrap().iter().all(|path| path.is_absolute()));
        for bad in [format!("{base}/b.json"), format!("{base}/*.xml"), format!("{base}/[")] {
            assert_eq!(absolute(std::slice::from_ref(&bad)).unwrap_err().exit, Exit::Usage, "{bad}");
        }
    }
}
