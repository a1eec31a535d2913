//! Everything a folder holds, as bytes: each file as it lies there, and each value of each row of its databases.

use std::fs;
use std::path::{Path, PathBuf};

use waybill_store::{DATABASE_FILE, DumpedRow, dump};

use crate::failure::Failure;

/// Largest file read in one piece; larger ones are read in overlapping pieces. Units: bytes.
const PIECE: usize = 64 * 1024 * 1024;
const OVERLAP: usize = 64 * 1024;

/// Bytes and where they lie.
pub struct Found<'a> {
    /// The file, or the file and the table and column.
    pub place: String,
    /// The bytes.
    pub bytes: &'a [u8],
}

fn cannot(path: &Path) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |e| Failure::environment(format!("{} cannot be read", path.display()), e)
}

/// Every file below a path, by name; sockets and the like are none.
pub fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let kind = fs::symlink_metadata(path).map_err(cannot(path))?;
    if kind.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    if kind.is_dir() {
        let entries = fs::read_dir(path).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
        let mut entries: Vec<PathBuf> = entries.map_err(cannot(path))?;
        entries.sort();
        for entry in entries {
            found.extend(files(&entry)?);
        }
    }
    Ok(found)
}

/// Hands over everything below a path; gives how many bytes that were.
pub async fn everything(path: &Path, each: &mut (dyn FnMut(&Found<'_>) + Send)) -> Result<u64, Failure> {
    let mut size_bytes = 0;
    for file in files(path)? {
        size_bytes += raw(&file, each)?;
        if file.file_name().is_some_and(|name| name == DATABASE_FILE) {
            rows(&file, &mut |row| {
                for (column, bytes) in &row.values {
                    size_bytes += bytes.len() as u64;
                    each(&Found { place: format!("{}: {}.{column}", file.display(), row.table), bytes });
                }
            })
            .await?;
        }
    }
    Ok(size_bytes)
}

fn raw(file: &Path, each: &mut (dyn FnMut(&Found<'_>) + Send)) -> Result<u64, Failure> {
    use std::io::{Read, Seek, SeekFrom};
    let mut reader = fs::File::open(file).map_err(cannot(file))?;
    let mut at = 0;
    loop {
        let mut bytes = Vec::new();
        reader.seek(SeekFrom::Start(at)).map_err(cannot(file))?;
        reader.by_ref().take(PIECE as u64).read_to_end(&mut bytes).map_err(cannot(file))?;
        each(&Found { place: file.display().to_string(), bytes: &bytes });
        if bytes.len() < PIECE {
            return Ok(at + bytes.len() as u64);
        }
        at += (PIECE - OVERLAP) as u64;
    }
}

/// Every row of a database, with what its write-ahead log holds; read from a copy, so that nothing is changed where it lies.
pub async fn rows(file: &Path, each: &mut (dyn FnMut(DumpedRow) + Send)) -> Result<(), Failure> {
    let copy = tempfile::tempdir().map_err(cannot(file))?;
    for suffix in ["", "-wal"] {
        let from = PathBuf::from(format!("{}{suffix}", file.display()));
        if from.exists() {
            fs::copy(&from, copy.path().join(format!("{DATABASE_FILE}{suffix}"))).map_err(cannot(&from))?;
        }
    }
    dump(&copy.path().join(DATABASE_FILE), each).await.map_err(|e| {
        Failure::environment(format!("{} cannot be read as a database", file.display()), e)
            .hint("stop the server first, or inspect a backup of it (waybill authority backup)")
    })
}
