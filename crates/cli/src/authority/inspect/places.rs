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
    /// The row of its table, from 0, when it is a value of a database.
    pub row: Option<u64>,
    /// Where the bytes begin in the file or the value.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// What every SQLite database begins with, whatever its name.
const DATABASE_HEADER: &[u8] = b"SQLite format 3\0";

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
        if is_database(&file)? {
            let (mut table, mut number) = (String::new(), 0);
            rows(&file, &mut |row| {
                (table, number) = if row.table == table { (row.table, number + 1) } else { (row.table, 0) };
                for (column, bytes) in &row.values {
                    size_bytes += bytes.len() as u64;
                    let place = format!("{}: {table}.{column}", file.display());
                    each(&Found { place, row: Some(number), offset: 0, bytes });
                }
            })
            .await?;
        }
    }
    Ok(size_bytes)
}

fn is_database(file: &Path) -> Result<bool, Failure> {
    use std::io::Read;
    let mut header = Vec::new();
    let reader = fs::File::open(file).map_err(cannot(file))?;
    reader.take(DATABASE_HEADER.len() as u64).read_to_end(&mut header).map_err(cannot(file))?;
    Ok(header == DATABASE_HEADER)
}

fn raw(file: &Path, each: &mut (dyn FnMut(&Found<'_>) + Send)) -> Result<u64, Failure> {
    use std::io::{Read, Seek, SeekFrom};
    let mut reader = fs::File::open(file).map_err(cannot(file))?;
    let mut at = 0;
    loop {
        let mut bytes = Vec::new();
        reader.seek(SeekFrom::Start(at)).map_err(cannot(file))?;
        reader.by_ref().take(PIECE as u64).read_to_end(&mut bytes).map_err(cannot(file))?;
        each(&Found { place: file.display().to_string(), row: None, offset: at, bytes: &bytes });
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
