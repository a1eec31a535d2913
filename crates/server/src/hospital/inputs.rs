//! Files, folders and globs as inputs of a load.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use waybill_record::load::Source;

/// Most files of one load.
const MAX_FILES: usize = 100_000;

/// An input that cannot be used; names the path.
#[derive(Debug, Error)]
pub enum InputError {
    /// Nothing is there.
    #[error("{0} does not exist, or cannot be read")]
    Missing(PathBuf),
    /// A folder or glob without a file to load.
    #[error("{0} holds no .json or .ndjson file")]
    Empty(PathBuf),
    /// The glob is malformed.
    #[error("{0} is not a valid glob pattern")]
    Pattern(PathBuf),
    /// Too much at once.
    #[error("more than {MAX_FILES} files; load them in parts")]
    TooMany,
}

/// A file on disk, opened as often as the loader reads it.
struct FileSource {
    path: PathBuf,
    name: String,
    folder: Option<String>,
}

impl Source for FileSource {
    fn open(&self) -> io::Result<Box<dyn io::Read + '_>> {
        Ok(Box::new(File::open(&self.path)?))
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn folder(&self) -> Option<&str> {
        self.folder.as_deref()
    }
}

/// The sources that paths name: a file is itself, a folder its `.json` and `.ndjson` files, a glob what it matches; by name.
///
/// # Errors
/// [`InputError`].
pub fn sources(paths: &[PathBuf]) -> Result<Vec<Box<dyn Source + Send>>, InputError> {
    let mut found: Vec<Box<dyn Source + Send>> = Vec::new();
    for path in paths {
        if path.is_file() {
            found.push(source(path, None));
            continue;
        }
        let (files, folder) = if path.is_dir() { (folder_files(path)?, path.clone()) } else { glob_files(path)? };
        if files.is_empty() {
            return Err(InputError::Empty(path.clone()));
        }
        let folder = folder.display().to_string();
        found.extend(files.iter().map(|file| source(file, Some(folder.clone()))));
        if found.len() > MAX_FILES {
            return Err(InputError::TooMany);
        }
    }
    Ok(found)
}

fn source(path: &Path, folder: Option<String>) -> Box<dyn Source + Send> {
    Box::new(FileSource { path: path.to_owned(), name: path.display().to_string(), folder })
}

fn is_record(path: &Path) -> bool {
    path.is_file()
        && path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json") || e.eq_ignore_ascii_case("ndjson"))
}

fn folder_files(path: &Path) -> Result<Vec<PathBuf>, InputError> {
    let entries = path.read_dir().map_err(|_| InputError::Missing(path.to_owned()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| is_record(p)).collect();
    files.sort();
    Ok(files)
}

fn glob_files(path: &Path) -> Result<(Vec<PathBuf>, PathBuf), InputError> {
    let text = path.to_str().filter(|text| text.contains(['*', '?', '[']));
    let text = text.ok_or_else(|| InputError::Missing(path.to_owned()))?;
    let matches = glob::glob(text).map_err(|_| InputError::Pattern(path.to_owned()))?;
    let files = matches.filter_map(Result::ok).filter(|p| is_record(p)).collect();
    Ok((files, path.parent().unwrap_or(Path::new(".")).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_folders_and_globs_are_found_and_the_rest_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.json", "a.ndjson", "c.txt"] {
            std::fs::write(folder.path().join(name), "{}").unwrap();
        }
        let names =
            |paths: &[PathBuf]| sources(paths).map(|s| s.iter().map(|s| s.name().to_owned()).collect::<Vec<_>>());
        let whole = names(&[folder.path().to_owned()]).unwrap();
        assert_eq!(whole.len(), 2);
        assert!(whole[0].ends_with("a.ndjson") && whole[1].ends_with("b.json"));
        assert_eq!(names(&[folder.path().join("*.json")]).unwrap().len(), 1);
        assert!(matches!(names(&[folder.path().join("none.json")]), Err(InputError::Missing(_))));
        assert!(matches!(names(&[folder.path().join("*.xml")]), Err(InputError::Empty(_))));
        let source = &sources(&[folder.path().to_owned()]).unwrap()[0];
        assert!(source.folder().is_some());
        assert!(sources(&[folder.path().join("b.json")]).unwrap()[0].folder().is_none());
    }
}
